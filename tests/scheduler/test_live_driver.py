from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import rows
from fake_costs import ANY, COSTS
from sqlalchemy import Engine, text

from ddit_batch.control import LiveControl
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.errors import LeadershipLost
from ddit_batch.job import JobId, JobState, Phase
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver
from ddit_batch.snapshot import Instruction, Progress, Snapshot

MakeDriver = Callable[..., LiveDriver]

DIT_QUEUE = "dit.dit-0@host"


@pytest.fixture
def crew(engine: Engine) -> dict[Phase, int]:
    """One worker of each phase."""
    return {phase: rows.registered(engine, phase, name=f"{phase}-0@host") for phase in Phase}


@pytest.fixture
def waiting(control: LiveControl) -> Callable[[str], list[str]]:
    """The task ids that wait in a queue."""
    return lambda queue: sorted(control.waiting_task_ids({queue}))


def cancel_requested(engine: Engine, *jobs: JobId) -> None:
    with engine.begin() as connection:
        statement = "UPDATE jobs SET cancel_requested_at = now() WHERE id = ANY(:ids)"
        connection.execute(text(statement), {"ids": list(jobs)})


def states(engine: Engine, *jobs: JobId) -> list[str]:
    return [str(rows.row(engine, job)["state"]) for job in jobs]


@pytest.mark.usefixtures("crew")
def test_jobs_are_admitted_within_the_look_ahead(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """However many rounds: the rest wait in Postgres until there is room."""
    jobs, driver = rows.submitted(engine, 5), make_driver()

    for _ in range(3):
        driver.round()

    assert waiting("encode") == [f"{job}.encode.a1" for job in jobs[:2]]
    assert [len(rows.attempts(engine, job)) for job in jobs] == [1, 1, 0, 0, 0]


def test_encoded_jobs_are_placed_on_the_workers_that_registered(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """One each, in the queue of its own; the next jobs take their places ahead."""
    rows.registered(engine, Phase.ENCODE)
    for name in ("dit-0@host", "dit-1@host"):
        rows.registered(engine, Phase.DIT, name=name)
    jobs, driver = rows.submitted(engine, 7), make_driver()
    driver.round()
    for job in jobs[:3]:
        rows.finished(engine, rows.claimed(engine, job))

    driver.round()

    assert waiting("dit.dit-0@host") == [f"{jobs[0]}.dit.a1"]
    assert waiting("dit.dit-1@host") == [f"{jobs[1]}.dit.a1"]
    assert rows.attempts(engine, jobs[2]) == [("encode", 1, "finish")]
    assert [len(rows.attempts(engine, job)) for job in jobs[3:]] == [1, 1, 1, 0]


@pytest.mark.usefixtures("crew")
def test_job_goes_all_the_way_by_the_messages_of_the_scheduler(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """Encode and DiT are sent in their turn; VAE follows DiT in its chain."""
    (job,), driver = rows.submitted(engine), make_driver()

    driver.round()
    assert waiting("encode") == [f"{job}.encode.a1"]
    rows.finished(engine, rows.claimed(engine, job))
    driver.round()
    assert waiting(DIT_QUEUE) == [f"{job}.dit.a1"]
    rows.finished(engine, rows.claimed(engine, job))
    driver.round()
    assert waiting("vae") == []
    rows.finished(engine, rows.claimed(engine, job))
    driver.round()

    assert states(engine, job) == [JobState.SUCCEEDED]
    assert rows.attempts(engine, job) == [(phase, 1, "finish") for phase in Phase]


@pytest.mark.usefixtures("crew")
def test_no_dit_is_sent_while_vae_lags_behind(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """Back-pressure counts what is in the database."""
    limits = Limits(look_ahead=2, decode_backlog=1, max_worker_losses=3)
    decoding, encoded = rows.waiting_for(engine, Phase.VAE), rows.waiting_for(engine, Phase.DIT)
    rows.withdrawn(engine, encoded)
    driver = make_driver(limits=limits)

    driver.round()
    assert waiting(DIT_QUEUE) == []

    rows.claimed(engine, decoding)
    driver.round()
    assert waiting(DIT_QUEUE) == [f"{encoded}.dit.a2"]


@pytest.mark.usefixtures("crew")
def test_long_queue_of_a_model_that_nobody_serves_holds_nobody_up(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """Neither in the window nor in the look-ahead."""
    rows.submitted(engine, 200, model="nobody-has-it")
    jobs, driver = rows.submitted(engine, 3), make_driver()

    driver.round()

    assert waiting("encode") == [f"{job}.encode.a1" for job in jobs[:2]]


def test_look_ahead_holds_for_many_workers(engine: Engine, make_driver: MakeDriver) -> None:
    """Also when it is wider than a window would be for one worker."""
    rows.registered(engine, Phase.ENCODE)
    for _ in range(10):
        rows.registered(engine, Phase.DIT)
    jobs = rows.submitted(engine, 130)
    with engine.begin() as connection:  # all workers are busy, and 85 jobs are encoded
        statement = "UPDATE jobs SET state = 'encoded', embeddings_key = 'x' WHERE id = ANY(:ids)"
        connection.execute(text(statement), {"ids": list(jobs[:85])})
    limits = Limits(look_ahead=9, decode_backlog=0, max_worker_losses=3)
    driver = make_driver(limits=limits)

    for _ in range(3):
        driver.round()

    sent = [len(rows.attempts(engine, job)) for job in jobs]
    assert sent == [0] * 85 + [1] * 5 + [0] * 40


def test_waiting_jobs_are_cancelled_and_held_ones_are_told(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, crew: dict[Phase, int]
) -> None:
    """Whatever their state; the worker of a held one confirms."""
    idle = [rows.waiting_for(engine, phase) for phase in Phase]
    for job in idle:
        rows.withdrawn(engine, job)
    sent = [rows.waiting_for(engine, phase) for phase in Phase]
    held = rows.holding(engine, Phase.DIT, by=crew[Phase.DIT])
    cancel_requested(engine, *idle, *sent, held.job_id)
    driver = make_driver()

    driver.round()

    assert states(engine, *idle, *sent) == [JobState.CANCELLED] * 6
    assert states(engine, held.job_id) == [JobState.DENOISING]
    letter = control.read_letter(held.job_id)
    assert letter is not None
    assert (letter.attempt, letter.instruction) == (1, Instruction.CANCEL)
    ClaimStore(engine).cancelled(held)
    driver.round()
    assert states(engine, held.job_id) == [JobState.CANCELLED]


def test_hundreds_of_cancelled_jobs_are_ended_in_one_round(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """Also without any worker."""
    jobs, driver = rows.submitted(engine, 200), make_driver()
    cancel_requested(engine, *jobs)

    driver.round()

    with engine.connect() as connection:
        found = connection.scalars(text("SELECT DISTINCT state FROM jobs")).all()
    assert found == [JobState.CANCELLED]


def test_steps_done_reach_postgres_and_old_reports_are_forgotten(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, crew: dict[Phase, int]
) -> None:
    """What leaders report passes through the broker, and stays there only while they run."""
    running = rows.holding(engine, Phase.DIT, by=crew[Phase.DIT])
    done = rows.holding(engine, Phase.VAE, by=crew[Phase.VAE])
    for job in (running.job_id, done.job_id):
        control.report(job, Progress(attempt=1, step=4, step_s=0.5))

    make_driver().round()

    assert (rows.row(engine, running.job_id)["step"], set(control.reports())) == (
        4,
        {running.job_id},
    )


def test_draining_leader_is_told_to_give_its_job_back(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, crew: dict[Phase, int]
) -> None:
    """And once it has, the job goes on elsewhere, from its checkpoint."""
    claim = rows.holding(engine, Phase.DIT, by=crew[Phase.DIT])
    LeaseStore(engine, lease_s=600).drain(crew[Phase.DIT])
    driver = make_driver()
    driver.round()
    letter = control.read_letter(claim.job_id)
    assert letter is not None
    assert (letter.attempt, letter.instruction) == (1, Instruction.RELEASE)
    assert letter.group == ()

    ClaimStore(engine).give_back(claim, reason="drain", checkpoint=("checkpoint-4", 4))
    rows.registered(engine, Phase.DIT, name="dit-1@host")
    driver.round()

    assert control.waiting_task_ids({"dit.dit-1@host"}) == {f"{claim.job_id}.dit.a2"}


class Overtaken(SchedulerStore):
    """Somebody acts between what the scheduler sees and what it does."""

    def __init__(self, engine: Engine, act: Callable[[], object]) -> None:
        super().__init__(engine, term=begin_term(engine, holder="test"))
        self.act = act

    def snapshot(self, **how: Any) -> Snapshot:
        """The world, which is no more like that."""
        found = super().snapshot(**how)
        self.act()
        return found


def test_command_that_came_too_late_spoils_no_other(
    engine: Engine, make_driver: MakeDriver, crew: dict[Phase, int]
) -> None:
    """It changes nothing, the round goes on, and the next one sees what has happened."""
    first, second = rows.waiting_for(engine, Phase.VAE), rows.waiting_for(engine, Phase.VAE)
    cancel_requested(engine, first, second)
    claims = ClaimStore(engine)
    store = Overtaken(engine, lambda: claims.claim(first, Phase.VAE, 1, crew[Phase.VAE]))

    make_driver(store=store).round()

    assert states(engine, first, second) == [JobState.DECODING, JobState.CANCELLED]


def test_job_that_was_claimed_by_a_worker_unknown_to_the_snapshot_is_not_sent_again(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """The core takes its holder for gone; the database knows better."""
    rows.registered(engine, Phase.DIT, name="dit-1@host")
    job = rows.waiting_for(engine, Phase.DIT)

    class Older(SchedulerStore):
        def snapshot(self, **how: Any) -> Snapshot:
            """Workers of before, jobs of after the registration and claim of one more."""
            before = super().snapshot(**how)
            rows.claimed(engine, job)
            now = super().snapshot(**how)
            return replace(now, workers=before.workers)

    make_driver(store=Older(engine, term=begin_term(engine, holder="test"))).round()

    assert states(engine, job) == [JobState.DENOISING]
    assert rows.attempts(engine, job)[1:] == [("dit", 1, None)]


def test_deposed_driver_stops(engine: Engine, make_driver: MakeDriver) -> None:
    """Its round ends with the first write that its successor's term refuses."""
    rows.registered(engine, Phase.ENCODE)
    rows.registered(engine, Phase.DIT)
    rows.submitted(engine)
    driver = make_driver()
    begin_term(engine, holder="successor")

    with rows.unchanged(engine), pytest.raises(LeadershipLost):
        driver.round()


def test_new_driver_goes_on_where_the_last_one_stopped(
    engine: Engine, make_driver: MakeDriver, waiting: Callable[[str], list[str]]
) -> None:
    """It keeps nothing that could be lost: what was sent is not sent again."""
    rows.registered(engine, Phase.ENCODE)
    rows.registered(engine, Phase.DIT)
    jobs = rows.submitted(engine, 3)

    for _ in range(3):
        make_driver(policy=Static(costs=COSTS, dop=1)).round()

    assert waiting("encode") == [f"{job}.encode.a1" for job in jobs[:2]]


def test_progress_says_how_the_job_stands(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, crew: dict[Phase, int]
) -> None:
    """Under every policy: starvation time since its grant, and when it will be done."""
    claim = rows.holding(engine, Phase.DIT, by=crew[Phase.DIT])
    driver = make_driver()
    driver.round()  # sees it
    control.report(claim.job_id, Progress(attempt=claim.attempt, step=3, step_s=9.9))

    driver.round()

    job = rows.row(engine, claim.job_id)
    assert job["starvation_s"] == pytest.approx(3 * (ANY.at(1) - ANY.at(ANY.optimal_dop)))
    left_s = (job["eta_at"] - datetime.now(UTC)).total_seconds()
    assert left_s == pytest.approx(5 * ANY.at(1) + ANY.decode_s, abs=1.0)
    assert job["step_s"] == 9.9


def test_starvation_and_estimate_end_with_the_denoising_of_a_job(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, crew: dict[Phase, int]
) -> None:
    """A job that waits again has lost nothing since its last grant, and nobody knows its end."""
    claim = rows.holding(engine, Phase.DIT, by=crew[Phase.DIT])
    driver = make_driver()
    driver.round()
    control.report(claim.job_id, Progress(attempt=claim.attempt, step=3, step_s=1.0))
    driver.round()

    ClaimStore(engine).give_back(claim, reason="drain", checkpoint=("checkpoint", 3))

    job = rows.row(engine, claim.job_id)
    assert (job["starvation_s"], job["eta_at"]) == (0.0, None)


def test_ends_of_batches_are_written(
    engine: Engine, make_driver: MakeDriver, crew: dict[Phase, int]
) -> None:
    """For `ddit status`, which only reads."""
    assert crew
    jobs = rows.submitted(engine, 2)

    make_driver().round()

    with engine.connect() as connection:
        (eta_at,) = connection.scalars(text("SELECT eta_at FROM batches"))
    left_s = (eta_at - datetime.now(UTC)).total_seconds()
    assert left_s == pytest.approx(len(jobs) * 8 * ANY.at(1) + ANY.decode_s, abs=1.0)
