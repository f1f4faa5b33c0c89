from __future__ import annotations

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.plans import PlanStore
from ddit_batch.db.step_times import form_times, phase_times, start_times, step_observations
from ddit_batch.job import BatchId, JobId, Phase, Shape, WorkerName

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


Span = tuple[int, int, float, str]
"""Steps up to which a group denoised, its dop, seconds a step, and why it began."""


def with_groups(engine: Engine, *spans: Span, steps: int = 100) -> Claim:
    """A job that groups of several sizes have denoised, and still do."""
    (job,) = rows.submitted(engine, num_inference_steps=steps)
    rows.finished(engine, rows.claimed(engine, job))
    claim, claims, seconds = rows.claimed(engine, job), ClaimStore(engine), []
    step = 0
    for epoch, (to_step, dop, step_s, reason) in enumerate(spans):
        names = tuple(WorkerName(f"w{number}") for number in range(dop))
        assert claims.change_group(claim, epoch=epoch, workers=names, step=step, reason=reason)
        seconds.append(step_s * (to_step - step))
        step = to_step
    with engine.begin() as connection:
        ids = connection.scalars(
            text("SELECT id FROM segments WHERE job_id = :job ORDER BY id"), {"job": job}
        )
        for number, took_s in zip(list(ids), seconds, strict=True):
            connection.execute(
                text(
                    "UPDATE segments SET started_at = coalesce(ended_at, clock_timestamp()) "
                    "- :s * interval '1 second' WHERE id = :id"
                ),
                {"s": took_s, "id": number},
            )
        connection.execute(
            text("UPDATE jobs SET step = :step WHERE id = :job"), {"step": step, "job": job}
        )
    return claim


def step_s_by_dop(engine: Engine) -> dict[int, tuple[float, ...]]:
    return {seen.dop: seen.step_s for seen in step_observations(engine)}


def test_each_size_of_a_group_that_changed_is_seen(engine: Engine) -> None:
    """Also of a job that still runs: what is over is over."""
    with_groups(
        engine,
        (60, 1, 2.0, "start"),
        (63, 2, 1.0, "grow"),
        (64, 4, 0.5, "grow"),
        (70, 2, 1.5, "shrink"),
        (80, 1, 2.5, "shrink"),
    )

    assert step_s_by_dop(engine) == {
        1: pytest.approx((2.0,)),
        2: pytest.approx((1.5, 1.0)),
        4: pytest.approx((0.5,)),
    }


def test_short_beginning_and_end_of_an_attempt_are_not_seen(engine: Engine) -> None:
    """On a few steps, loading and storing weigh too much; on half of all steps they do not."""
    claim = with_groups(engine, (2, 1, 9.0, "start"), (90, 2, 1.0, "grow"), (100, 4, 9.0, "grow"))
    rows.finished(engine, claim)
    assert step_s_by_dop(engine) == {2: pytest.approx((1.0,))}

    claim = with_groups(engine, (50, 1, 2.0, "start"), (51, 2, 3.0, "grow"))
    ClaimStore(engine).give_back(claim, reason="x", checkpoint=("checkpoint", 51))
    assert step_s_by_dop(engine) == {1: pytest.approx((2.0,)), 2: pytest.approx((1.0,))}


def test_group_that_broke_is_not_seen(engine: Engine) -> None:
    """It ended when somebody noticed; what went on after it began with a step."""
    claim = with_groups(
        engine,
        (10, 1, 2.0, "start"),
        (30, 2, 9.0, "grow"),
        (31, 1, 2.5, "group_broken"),
        (100, 2, 1.0, "grow"),
    )
    rows.finished(engine, claim)

    assert step_s_by_dop(engine) == {1: pytest.approx((2.5,)), 2: pytest.approx((1.0,), rel=0.02)}


def test_last_group_of_a_lost_leader_is_not_seen_but_those_before_it_are(engine: Engine) -> None:
    """Only the end of the attempt is uncertain."""
    claim = with_groups(engine, (60, 1, 2.0, "start"), (70, 2, 1.0, "grow"), (99, 4, 9.0, "grow"))
    rows.lost(engine, claim.incarnation)
    rows.leading(engine).rescue(rows.view(engine, claim.job_id))

    assert step_s_by_dop(engine) == {1: pytest.approx((2.0,)), 2: pytest.approx((1.0,))}


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


def made_earlier(engine: Engine, table: str, column: str, seconds: float) -> None:
    """Have all rows of *table* made so long before what came next."""
    ended = {"plans": "ended_at", "attempts": "claimed_at"}[table]
    with engine.begin() as connection:
        connection.execute(
            text(
                f"UPDATE {table} SET {column} = {ended} - :s * interval '1 second' "
                f"WHERE {ended} IS NOT NULL"
            ),
            {"s": seconds},
        )


def test_a_start_takes_from_the_sending_to_the_claim(engine: Engine) -> None:
    """Of the DiT phase alone, and of one batch alone; a message that nobody took yet has none."""
    job = denoised(engine, 8.0)
    denoised(engine, 8.0)
    waiting = rows.waiting_for(engine, Phase.DIT)

    made_earlier(engine, "attempts", "dispatched_at", 0.25)

    assert start_times(engine, batch_of(job)) == pytest.approx((0.25,))
    assert start_times(engine, batch_of(waiting)) == ()


def test_forming_takes_from_the_decision_to_the_group_that_stands(engine: Engine) -> None:
    """A plan that was not formed has no say, nor has one for the leader alone."""
    leader, other, late = (WorkerName(f"dit-{number}@host") for number in range(3))
    by = rows.registered(engine, name=leader)
    for name in (other, late):
        rows.registered(engine, name=name)
    claim = rows.holding(engine, Phase.DIT, by=by)
    plans, claims = PlanStore(engine), ClaimStore(engine)
    for group, is_formed in (((leader, late), False), ((leader, other), True), ((leader,), True)):
        view = rows.view(engine, claim.job_id)
        epoch = rows.leading(engine).open_plan(view, group).epoch
        if not is_formed:
            plans.not_formed(claim, epoch)
        elif plans.formed(claim, epoch):
            claims.change_group(claim, epoch=epoch, workers=group, step=3, reason="change")

    made_earlier(engine, "plans", "made_at", 0.125)

    assert form_times(engine, batch_of(claim.job_id)) == pytest.approx((0.125,))
    assert form_times(engine, batch_of(denoised(engine, 8.0))) == ()
