"""A running job that is left out, or paused, gives its workers back, live; it goes on later."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import rows
from shortest_first import ShortestFirst
from sqlalchemy import Engine

from ddit_batch.control import LiveControl
from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.wishes import pause, resume
from ddit_batch.job import JobId, JobState, Phase
from ddit_batch.messages import Letter
from ddit_batch.scheduler.live import LiveDriver
from ddit_batch.snapshot import Instruction, Progress

MakeDriver = Callable[..., LiveDriver]
LONG = 40
SHORT = 4


@pytest.fixture
def worker(engine: Engine) -> int:
    """The one DiT worker, with one of each other phase beside it."""
    for phase in (Phase.ENCODE, Phase.VAE):
        rows.registered(engine, phase)
    return rows.registered(engine, Phase.DIT, name=rows.LEADER)


def encoded(engine: Engine, *, steps: int) -> JobId:
    """A job of so many steps that waits for a DiT worker, and of which no message is out."""
    (job,) = rows.submitted(engine, num_inference_steps=steps)
    rows.finished(engine, rows.claimed(engine, job))
    return job


def runs(engine: Engine, job: JobId, worker: int) -> Claim:
    """The job, as its worker has taken it from its queue."""
    return ClaimStore(engine).claim(job, Phase.DIT, rows.view(engine, job).attempt, worker)


def told(control: LiveControl, claim: Claim) -> Instruction | None:
    """What the job's leader reads at its next step boundary."""
    letter = control.read_letter(claim.job_id)
    return letter.instruction if letter and letter.attempt == claim.attempt else None


def test_running_job_that_is_left_out_gives_way_and_goes_on_from_its_step(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, worker: int
) -> None:
    """Release, checkpoint, wait; the other job has the worker; then the first one resumes."""
    driver, claims = make_driver(policy=ShortestFirst()), ClaimStore(engine)
    long = encoded(engine, steps=LONG)
    driver.round()
    claim = runs(engine, long, worker)
    control.report(long, Progress(attempt=claim.attempt, step=7, step_s=1.0))

    short = encoded(engine, steps=SHORT)
    driver.round()
    assert told(control, claim) is Instruction.RELEASE
    assert rows.view(engine, short).group == ()
    claims.give_back(claim, reason="released", checkpoint=("checkpoint", 8))
    driver.round()

    assert rows.view(engine, short).group == (rows.LEADER,)
    waiting = rows.view(engine, long)
    assert (waiting.state, waiting.step, waiting.group) == (JobState.ENCODED, 8, ())
    assert waiting.last_group == (rows.LEADER,)
    rows.finished(engine, runs(engine, short, worker))
    driver.round()
    again = runs(engine, long, worker)
    assert (again.attempt, again.checkpoint_key) == (2, "checkpoint")
    assert rows.segments(engine, long) == [(0, 8, "start"), (8, None, "resume")]
    assert told(control, again) is None


def test_word_is_taken_back_when_the_reason_is_gone(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, worker: int
) -> None:
    """A job that has not given its worker back yet keeps it, if the shorter one is cancelled."""
    driver = make_driver(policy=ShortestFirst())
    long = encoded(engine, steps=LONG)
    driver.round()
    claim = runs(engine, long, worker)
    short = encoded(engine, steps=SHORT)
    driver.round()
    assert told(control, claim) is Instruction.RELEASE

    rows.leading(engine).cancel(rows.view(engine, short))
    driver.round()

    assert told(control, claim) is Instruction.CONTINUE


def test_letter_of_an_earlier_attempt_is_not_pending(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, worker: int
) -> None:
    """A job that has come back is not thought to be about to leave again."""
    driver = make_driver(policy=ShortestFirst())
    job = encoded(engine, steps=LONG)
    driver.round()
    ClaimStore(engine).give_back(runs(engine, job, worker), reason="drained")
    driver.round()
    claim = runs(engine, job, worker)
    old = Letter(attempt=claim.attempt - 1, instruction=Instruction.RELEASE, group=(), epoch=9)
    control.write_letter(job, old)

    driver.round()

    assert control.read_letter(job) == old


def test_paused_job_gives_way_to_others_and_goes_on_from_its_step(
    engine: Engine, make_driver: MakeDriver, control: LiveControl, worker: int
) -> None:
    """Told like a preempted one; then not sent for as long as the pause lasts."""
    driver, claims = make_driver(), ClaimStore(engine)
    job = encoded(engine, steps=LONG)
    batch = job.partition("-")[0]
    driver.round()
    claim = runs(engine, job, worker)

    pause(engine, [batch])
    driver.round()
    assert told(control, claim) is Instruction.RELEASE
    claims.give_back(claim, reason="released", checkpoint=("checkpoint", 8))
    other = encoded(engine, steps=SHORT)
    for _ in range(3):
        driver.round()

    assert rows.view(engine, other).group == (rows.LEADER,)
    assert rows.row(engine, job)["dispatched_at"] is None
    rows.finished(engine, runs(engine, other, worker))
    driver.round()
    assert rows.row(engine, job)["dispatched_at"] is None
    resume(engine, [batch])
    driver.round()
    again = runs(engine, job, worker)
    assert (again.attempt, again.checkpoint_key) == (2, "checkpoint")


def test_pause_that_ends_before_the_next_boundary_leaves_nothing_behind(
    engine: Engine, make_driver: MakeDriver, worker: int
) -> None:
    """What its leader was told stands; once it has come back it is sent again."""
    driver = make_driver()
    job = encoded(engine, steps=LONG)
    batch = job.partition("-")[0]
    driver.round()
    claim = runs(engine, job, worker)
    pause(engine, [batch])
    driver.round()
    resume(engine, [batch])
    driver.round()

    ClaimStore(engine).give_back(claim, reason="released", checkpoint=("checkpoint", 3))
    driver.round()

    assert runs(engine, job, worker).checkpoint_key == "checkpoint"
    driver.round()
    assert rows.view(engine, job).pending is None


def test_vae_message_behind_the_dit_of_a_paused_job_is_made_void(
    engine: Engine, make_driver: MakeDriver, worker: int
) -> None:
    """A job that came to its last step decodes after the pause, by a message of its own."""
    driver = make_driver()
    job = encoded(engine, steps=SHORT)
    batch = job.partition("-")[0]
    driver.round()
    claim = runs(engine, job, worker)
    pause(engine, [batch])

    rows.finished(engine, claim)
    driver.round()

    assert rows.row(engine, job)["state"] == JobState.DENOISED
    assert rows.attempts(engine, job)[-1] == (Phase.VAE, 1, "superseded")
    driver.round()
    assert rows.row(engine, job)["dispatched_at"] is None
    resume(engine, [batch])
    driver.round()
    assert rows.view(engine, job).attempt == 2
