from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

import pytest
from farm import STEPS, Farm, request, scheduler_running
from sqlalchemy import Engine

from ddit_batch.job import FINAL_STATES, JobState, Phase
from ddit_batch.lifecycle import Trigger


def in_every_state(farm: Farm) -> None:
    """A batch of nine jobs, one in each state."""
    workers = farm.workers()
    jobs = dict(
        zip(JobState, farm.submit(*(request(n) for n in range(1, 10)), name="b.jsonl"), strict=True)
    )
    for state, job in jobs.items():
        if state not in {JobState.FAILED, JobState.CANCELLED}:
            farm.bring(job, state, workers)
    failing = farm.claim(jobs[JobState.FAILED], workers[Phase.ENCODE])
    farm.claims.fail(failing, code="phase_failed", message="no", retryable=False, max_failures=1)
    farm.store.cancel(farm.view(jobs[JobState.CANCELLED]))


def test_batch_counts_its_jobs_in_every_state(farm: Farm) -> None:
    """One job in each state: one in each column, and what is not final is unfinished."""
    in_every_state(farm)

    (found,) = farm.rows("SELECT * FROM batch_progress")

    assert {state: found[state] for state in JobState} == dict.fromkeys(JobState, 1)
    assert (found["name"], found["total"]) == ("b.jsonl", len(JobState))
    assert found["unfinished"] == len(JobState) - len(FINAL_STATES)
    assert isinstance(found["first_finished_at"], datetime)
    assert found["first_finished_at"] < found["last_finished_at"]


def test_batch_is_as_far_as_the_steps_of_jobs_that_are_not_given_up(farm: Farm) -> None:
    """Steps of failed and cancelled jobs count neither as done nor as to do."""
    in_every_state(farm)

    (found,) = farm.rows("SELECT * FROM batch_progress")

    assert (found["steps_done"], found["steps_total"]) == (3 * STEPS, 7 * STEPS)
    assert found["percent"] == pytest.approx(100 * 3 / 7, abs=0.05)


def test_batch_takes_as_long_as_its_last_job_in_order(farm: Farm) -> None:
    """The estimate is that of the job that is denoised last, and null once nothing is left."""
    workers = farm.workers()
    running, last, first = farm.submit(request(1), request(2, priority=-1), request(3))
    farm.bring(running, JobState.DENOISING, workers)
    claim = farm.claims.claim(running, Phase.DIT, 1, workers[Phase.DIT])
    farm.progress(claim, step=4, step_s=1.0)

    (of_batch,) = (row["eta_s"] for row in farm.rows("SELECT * FROM batch_progress"))

    assert of_batch == farm.status(last)["eta_s"] == 4 + STEPS + STEPS
    for job in (last, first):
        farm.store.cancel(farm.view(job))
    assert farm.rows("SELECT eta_s FROM batch_progress") == [{"eta_s": 4.0}]
    farm.finish(claim)
    assert farm.rows("SELECT eta_s, percent FROM batch_progress") == [
        {"eta_s": None, "percent": 100.0}
    ]


def test_batches_are_told_apart(farm: Farm) -> None:
    """Each batch has its own row and its own jobs."""
    (one,) = farm.submit(name="one")
    farm.submit(request(1), request(2), name="two")
    farm.store.publish_limits(look_ahead=1, decode_backlog=1)
    farm.workers()
    farm.store.cancel(farm.view(one))

    found = farm.rows("SELECT name, queued, cancelled FROM batch_progress ORDER BY created_at")

    assert found == [
        {"name": "one", "queued": 0, "cancelled": 1},
        {"name": "two", "queued": 2, "cancelled": 0},
    ]


def test_worker_shows_its_newest_life_and_what_it_works_on(farm: Farm) -> None:
    """One row a name, with the job in its hands and what all of its lives have finished."""
    workers = farm.workers()
    done, running = farm.submit(request(1), request(2))
    farm.bring(done, JobState.SUCCEEDED, workers)
    newest = farm.worker("dit-0@gpu-a", Phase.DIT)
    farm.bring(running, JobState.DENOISING, {**workers, Phase.DIT: newest})

    found = {row["name"]: row for row in farm.rows("SELECT * FROM worker_status")}

    assert set(found) == {"encode-0@gpu-a", "dit-0@gpu-a", "vae-0@gpu-a"}
    dit, vae = found["dit-0@gpu-a"], found["vae-0@gpu-a"]
    assert (dit["incarnation"], dit["state"], dit["job_id"]) == (newest, "online", running)
    assert (vae["job_id"], vae["phase"], vae["device"]) == (None, "vae", "cuda:0")
    assert {name: row["jobs_done"] for name, row in found.items()} == {
        "encode-0@gpu-a": 2,
        "dit-0@gpu-a": 1,
        "vae-0@gpu-a": 1,
    }
    assert 3500 < float(str(dit["lease_left_s"])) <= 3600


def test_worker_that_ended_was_last_seen_while_its_lease_held(farm: Farm) -> None:
    """An expired lease shows as a negative rest; a lost worker has none, and works on nothing."""
    worker = farm.worker("vae-0@gpu-a", Phase.VAE)
    farm.execute("UPDATE workers SET lease_expires_at = '2026-01-01 12:00Z'")

    (silent,) = farm.rows("SELECT * FROM worker_status")
    farm.lose(worker)
    (lost,) = farm.rows("SELECT * FROM worker_status")

    assert (silent["state"], lost["state"]) == ("online", "lost")
    assert float(str(silent["lease_left_s"])) < 0
    assert lost["lease_left_s"] is None
    assert isinstance(silent["last_seen"], datetime)
    assert silent["last_seen"].isoformat().startswith("2026-01-01T12:00")
    assert (lost["job_id"], lost["jobs_done"]) == (None, 0)


def test_follower_works_on_its_leaders_job(farm: Farm) -> None:
    """A worker in a group shows the job, though its leader holds it."""
    workers = farm.workers()
    farm.worker("dit-1@gpu-a", Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.execute("UPDATE segments SET dop = 2, workers = '{dit-0@gpu-a,dit-1@gpu-a}'")

    found = farm.rows("SELECT job_id FROM worker_status WHERE name = 'dit-1@gpu-a'")
    capacity = farm.rows("SELECT workers, idle FROM worker_capacity WHERE phase = 'dit'")

    assert found == [{"job_id": job}]
    assert capacity == [{"workers": 2, "idle": 0}]


def test_latency_is_of_attempts_that_finished(farm: Farm) -> None:
    """Mean, quantiles and maximum by phase, model and shape; a failed attempt is left out."""
    workers = farm.workers()
    *jobs, failing = farm.submit(*(request(n) for n in range(1, 6)))
    for job in jobs:
        farm.bring(job, JobState.ENCODED, workers)
    claim = farm.claim(failing, workers[Phase.ENCODE])
    farm.claims.fail(claim, code="x", message="y", retryable=True, max_failures=3)
    farm.execute(
        "UPDATE attempts SET ended_at = claimed_at "
        "+ right(job_id, 6)::integer * interval '1 s' WHERE phase = 'encode'"
    )

    (found,) = farm.rows("SELECT * FROM phase_latency")

    assert (found["phase"], found["model"], found["shape"]) == ("encode", "tiny-wan", "96x64x9")
    assert (found["attempts"], found["mean_s"], found["p50_s"], found["max_s"]) == (4, 2.5, 2.5, 4)
    assert found["p95_s"] == pytest.approx(3.85)
    outcomes = farm.rows("SELECT DISTINCT outcome FROM attempts WHERE ended_at IS NOT NULL")
    assert {row["outcome"] for row in outcomes} == {Trigger.FINISH, Trigger.ATTEMPT_FAILED}


def test_batch_takes_as_long_as_the_scheduler_says(engine: Engine) -> None:
    """As long as one leads, there is something left, and the time is not past."""
    farm = Farm(engine)
    (job,) = farm.submit()
    batch = job.partition("-")[0]
    query = "SELECT eta_s FROM batch_progress"
    farm.workers()
    farm.store.record_ends({batch: 500.0})

    with scheduler_running(engine):
        (led,) = farm.rows(query)
        farm.store.cancel(farm.view(job))
        done = farm.rows(query)
    assert led["eta_s"] == pytest.approx(500.0, abs=5.0)
    assert done == [{"eta_s": None}]


@pytest.mark.parametrize("end_s", [500.0, -1.0])
def test_estimate_without_a_leader_or_of_the_past_is_none(engine: Engine, end_s: float) -> None:
    """What was said before a stop, or was wrong, is not shown; the pace of late is."""
    farm = Farm(engine)
    (job,) = farm.submit()
    farm.store.record_ends({job.partition("-")[0]: end_s})

    with scheduler_running(engine) if end_s < 0 else nullcontext():
        assert farm.rows("SELECT eta_s FROM batch_progress") == [{"eta_s": None}]


def test_estimates_that_hardly_change_are_not_written_again(farm: Farm) -> None:
    """A row that is rewritten every two seconds for nothing bloats its table."""
    (job,) = farm.submit()
    batch = job.partition("-")[0]
    query = "SELECT eta_at FROM batches"
    farm.store.record_ends({batch: 1000.0})
    (first,) = farm.rows(query)

    farm.store.record_ends({batch: 1002.0})
    assert farm.rows(query) == [first]

    farm.store.record_ends({batch: 1100.0})
    assert farm.rows(query) != [first]


def test_batch_shows_what_its_user_wished(farm: Farm) -> None:
    """Share and deadline; the defaults where nothing was said."""
    farm.submit()
    query = "SELECT share, deadline FROM batch_progress"
    assert farm.rows(query) == [{"share": 1.0, "deadline": None}]

    farm.execute("UPDATE batches SET share = 2, deadline = '2030-01-01 12:00Z'")

    (found,) = farm.rows(query)
    assert found["share"] == 2.0
    assert isinstance(found["deadline"], datetime)
