from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.step_times import phase_times, step_observations
from ddit_batch.job import BatchId, JobId, Phase, Shape

SHAPE = Shape(64, 96, 9)


def lasting(engine: Engine, job: JobId, seconds: float, *, dop: int = 1) -> None:
    """Have the job's segments last so long, on so many workers."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE segments SET started_at = ended_at - :s * interval '1 second', dop = :dop,"
                " workers = array_fill('w'::text, ARRAY[:dop]) WHERE job_id = :job"
            ),
            {"s": seconds, "dop": dop, "job": job},
        )


def denoised(engine: Engine, seconds: float, *, dop: int = 1, **changes: object) -> JobId:
    """A job of 8 steps that were done in *seconds*."""
    (job,) = rows.submitted(engine, **changes)
    for _ in (Phase.ENCODE, Phase.DIT):
        rows.finished(engine, rows.claimed(engine, job))
    lasting(engine, job, seconds, dop=dop)
    return job


def batch_of(job: JobId) -> BatchId:
    return BatchId(job.partition("-")[0])


def test_seconds_per_step_are_seen_by_model_shape_and_dop(engine: Engine) -> None:
    """Each kind of step is one observation, its samples newest first."""
    denoised(engine, 8.0)
    denoised(engine, 16.0)
    denoised(engine, 4.0, dop=2)
    denoised(engine, 24.0, height=128)

    found = {(seen.model, seen.shape, seen.dop): seen for seen in step_observations(engine)}

    assert {key: seen.step_s for key, seen in found.items()} == {
        ("tiny-wan", SHAPE, 1): pytest.approx((2.0, 1.0)),
        ("tiny-wan", SHAPE, 2): pytest.approx((0.5,)),
        ("tiny-wan", Shape(128, 96, 9), 1): pytest.approx((3.0,)),
    }
    assert found["tiny-wan", SHAPE, 1].count == 2


def test_only_the_newest_segments_are_seen(engine: Engine) -> None:
    """A machine that has changed is believed before long."""
    for seconds in (8.0, 16.0, 24.0):
        denoised(engine, seconds)

    (seen,) = step_observations(engine, recent=2)

    assert seen.step_s == pytest.approx((3.0, 2.0))


def test_a_batch_can_be_asked_for_alone(engine: Engine) -> None:
    """What else the workers did is left out."""
    denoised(engine, 8.0)
    job = denoised(engine, 16.0)

    (seen,) = step_observations(engine, batch_id=batch_of(job))

    assert seen.step_s == pytest.approx((2.0,))


def test_open_segments_and_those_without_a_step_are_not_seen(engine: Engine) -> None:
    """They say nothing yet, or nothing at all."""
    rows.holding(engine, Phase.DIT)
    claim = rows.holding(engine, Phase.DIT)
    ClaimStore(engine).give_back(claim, reason="released", checkpoint=None)

    assert step_observations(engine) == ()


def test_steps_of_a_job_that_was_given_back_are_seen(engine: Engine) -> None:
    """What a segment took by the steps that it did."""
    claim = rows.holding(engine, Phase.DIT)
    ClaimStore(engine).give_back(claim, reason="released", checkpoint=("checkpoint-3", 3))
    lasting(engine, claim.job_id, 6.0)

    (seen,) = step_observations(engine)

    assert seen.step_s == pytest.approx((2.0,))


def test_the_end_of_a_lost_worker_is_not_seen(engine: Engine) -> None:
    """Its segment ended when somebody noticed, not when its last step did."""
    claim = rows.holding(engine, Phase.DIT)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET step = 5 WHERE id = :id"), {"id": claim.job_id})
    rows.lost(engine, claim.incarnation)
    rows.leading(engine).rescue(rows.view(engine, claim.job_id))

    assert rows.segments(engine, claim.job_id) == [(0, 5, "start")]
    assert step_observations(engine) == ()


def test_phase_times_are_those_of_finished_attempts(engine: Engine) -> None:
    """Of one batch, with the device that the worker names; a failed try is left out."""
    claims, (job,) = ClaimStore(engine), rows.submitted(engine)
    encode = rows.claimed(engine, job)
    claims.fail(encode, code="oops", message="x", retryable=True, max_failures=9)
    for _ in Phase:
        rows.finished(engine, rows.claimed(engine, job))
    denoised(engine, 8.0)
    with engine.begin() as connection:
        connection.execute(text("UPDATE attempts SET claimed_at = ended_at - interval '3 seconds'"))

    found = phase_times(engine, batch_of(job))

    assert [time.phase for time in found] == list(Phase)
    assert [time.seconds for time in found] == pytest.approx([3.0] * 3)
    assert {(time.shape, time.device) for time in found} == {(SHAPE, "cpu")}
