from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime

import pytest
from farm import STEPS, Farm, Row, request, scheduler_running
from sqlalchemy import Engine

from ddit_batch.db.plans import PlanStore
from ddit_batch.db.status import batches
from ddit_batch.db.wishes import pause, resume
from ddit_batch.job import FINAL_STATES, BatchId, JobState, Phase, WorkerName
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


def roles(farm: Farm) -> dict[str, tuple[object, object]]:
    """Job and role of every DiT worker."""
    found = farm.rows("SELECT name, job_id, role FROM worker_status WHERE phase = 'dit'")
    return {str(row["name"]): (row["job_id"], row["role"]) for row in found}


def idle(farm: Farm) -> object:
    """How many DiT workers have nothing to do."""
    (found,) = farm.rows("SELECT idle FROM worker_capacity WHERE phase = 'dit'")
    return found["idle"]


def test_workers_show_whether_they_lead_follow_or_join(farm: Farm) -> None:
    """A worker in a group shows the job, though its leader holds it; so does one on its way."""
    workers = farm.workers()
    lead, follow, join, rest = (f"dit-{number}@gpu-a" for number in range(4))
    for name in (follow, join, rest):
        farm.worker(name, Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    assert (roles(farm)[lead], idle(farm)) == ((job, "leader"), 3)

    farm.group(claim, lead, follow)
    assert (roles(farm)[follow], idle(farm)) == ((job, "follower"), 2)
    farm.group(claim, lead, follow, join, done=False)

    assert roles(farm) == {
        lead: (job, "leader"),
        follow: (job, "follower"),
        join: (job, "joining"),
        rest: (None, None),
    }
    assert idle(farm) == 1


def test_worker_that_a_sent_job_waits_for_is_not_idle(farm: Farm) -> None:
    """Its leader has not claimed it yet, and its followers have not been needed."""
    workers = farm.workers()
    farm.worker("dit-1@gpu-a", Phase.DIT)
    farm.worker("dit-2@gpu-a", Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.ENCODED, workers)
    group = (WorkerName("dit-0@gpu-a"), WorkerName("dit-1@gpu-a"))

    farm.store.open_attempt(farm.view(job), "dit.dit-0@gpu-a", group)

    assert roles(farm)["dit-1@gpu-a"] == (job, "joining")
    assert idle(farm) == 1
    assert farm.status(job)["next_workers"] == list(group)
    assert farm.status(job)["waiting_for"] == "message_sent"


def test_worker_that_was_let_go_is_idle(farm: Farm) -> None:
    """Once the plan without it is in effect, whatever plans it was in before."""
    workers = farm.workers()
    farm.worker("dit-1@gpu-a", Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    farm.group(claim, "dit-0@gpu-a", "dit-1@gpu-a")

    told = farm.group(claim, "dit-0@gpu-a", done=False)
    assert (roles(farm)["dit-1@gpu-a"], idle(farm)) == ((job, "follower"), 0)
    assert PlanStore(farm.engine).formed(claim, told)
    farm.claims.change_group(
        claim, epoch=told, workers=(WorkerName("dit-0@gpu-a"),), step=3, reason="shrink"
    )

    assert (roles(farm)["dit-1@gpu-a"], idle(farm)) == ((None, None), 1)


def test_job_shows_the_change_of_its_group_that_is_under_way(farm: Farm) -> None:
    """From the decision to the step boundary; null again after it, and when taken back."""
    workers = farm.workers()
    farm.worker("dit-1@gpu-a", Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    pair = ["dit-0@gpu-a", "dit-1@gpu-a"]

    seen = [farm.status(job)["next_workers"]]
    farm.group(claim, *pair, done=False)
    seen.append(farm.status(job)["next_workers"])
    farm.group(claim, *pair)
    seen.append(farm.status(job)["next_workers"])
    farm.group(claim, done=False)
    seen.append(farm.status(job)["next_workers"])
    farm.store.withdraw_plan(farm.view(job))
    seen.append(farm.status(job)["next_workers"])

    assert seen == [None, pair, None, [], None]
    assert (farm.status(job)["dop"], farm.status(job)["workers"]) == (2, pair)
    plans = farm.rows("SELECT workers, dop, outcome, is_open FROM group_plans ORDER BY epoch")
    assert [tuple(row.values()) for row in plans] == [
        (pair, 2, "formed", False),
        ([], 0, "withdrawn", False),
    ]


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


def test_paused_batch_says_so_and_has_no_estimate(engine: Engine) -> None:
    """Neither the scheduler's nor the pace's; its jobs have none, and are ahead of nobody."""
    farm = Farm(engine)
    workers = farm.workers()
    first, second = farm.submit(request(1), request(2))
    (other,) = farm.submit()
    claim = farm.claim(first, workers[Phase.ENCODE])
    farm.finish(claim)
    claim = farm.claim(first, workers[Phase.DIT])
    farm.progress(claim, step=4, step_s=0.5)
    batch = first.partition("-")[0]
    farm.store.record_ends({batch: 60.0, other.partition("-")[0]: 90.0})

    with scheduler_running(engine):
        pause(engine, [batch])
        paused, status = summary(farm, batch), [farm.status(job) for job in (first, second)]
        ahead = farm.status(other)["jobs_ahead"]
        (listed,) = batches(engine, BatchId(batch))
        resume(engine, [batch])
        resumed = summary(farm, batch)

    assert paused["paused_at"] is not None
    assert (paused["eta_s"], listed.eta_s) == (None, None)
    assert listed.paused_at == paused["paused_at"]
    assert [row["eta_s"] for row in status] == [None, None]
    assert ahead == 0
    assert resumed["paused_at"] is None
    assert resumed["eta_s"] == pytest.approx(60, abs=5)


def summary(farm: Farm, batch: str) -> Row:
    """The batch's row in ``batch_progress``."""
    (row,) = farm.rows(f"SELECT * FROM batch_progress WHERE batch_id = '{batch}'")
    return row
