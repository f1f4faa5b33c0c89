"""Snapshots for the tests of the pure core: jobs and workers with defaults, and what follows.

``applied`` carries commands out on a snapshot, as the database would, one compare-and-set each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ddit_batch.job import (
    PHASE_OF,
    WAITING_STATE,
    Incarnation,
    JobId,
    JobState,
    Phase,
    Shape,
    WorkerName,
)
from ddit_batch.scheduler.commands import (
    Cancel,
    Command,
    GiveUp,
    LoseWorker,
    Rescue,
    Resend,
    Send,
    TakeAway,
    Tell,
    TimeOut,
    Withdraw,
)
from ddit_batch.scheduler.core import Limits
from ddit_batch.snapshot import Instruction, JobView, Snapshot, Whereabouts, WorkerView

MODEL = "tiny-wan"
LIMITS = Limits(look_ahead=2, decode_backlog=3, max_worker_losses=3)


def a_job(number: int, state: JobState = JobState.QUEUED, **changes: object) -> JobView:
    """Job *number*, which is also its order of arrival; nobody holds it and nothing is out."""
    job = JobView(
        job_id=JobId(f"b0-{number:06d}"),
        batch_id="b0",
        state=state,
        priority=0,
        seq=number,
        model=MODEL,
        shape=Shape(64, 96, 9),
        steps=8,
        step=0,
        attempt=0,
        dop=0,
        message=Whereabouts.NONE,
        group=(),
        holder=None,
        worker_losses=0,
        cancel_requested=False,
        arrived_s=0.0,
    )
    return replace(job, **changes)


def a_sent_job(
    number: int, state: JobState, *group: str, missing: bool = False, **changes: object
) -> JobView:
    """A waiting job whose message is out, or has gone missing."""
    message = Whereabouts.MISSING if missing else Whereabouts.SENT
    names = tuple(map(WorkerName, group))
    return a_job(number, state, attempt=1, message=message, group=names, **changes)


def a_held_job(number: int, state: JobState, *holders: WorkerView, **changes: object) -> JobView:
    """A job that *holders*, the leader first, work on."""
    denoising = state is JobState.DENOISING
    return a_job(
        number,
        state,
        attempt=1,
        holder=holders[0].incarnation,
        group=tuple(worker.name for worker in holders) if denoising else (),
        dop=len(holders) if denoising else 0,
        **changes,
    )


def a_worker(number: int, phase: Phase = Phase.DIT, **changes: object) -> WorkerView:
    """Worker *number* of its phase, live and idle; the number counts over all phases."""
    worker = WorkerView(
        name=WorkerName(f"{phase}-{number}@host"),
        incarnation=Incarnation(number + 1),
        phase=phase,
        host="host",
        node="host",
        models=frozenset({MODEL}),
        draining=False,
        lease_expired=False,
    )
    return replace(worker, **changes)


def a_world(
    *things: JobView | WorkerView, waiting_to_decode: int | None = None, may_lose: bool = True
) -> Snapshot:
    """A snapshot of *things*; all jobs that wait for VAE are in the window if nothing is said."""
    jobs = tuple(thing for thing in things if isinstance(thing, JobView))
    decode = sum(job.state is JobState.DENOISED for job in jobs)
    return Snapshot(
        now_s=0.0,
        jobs=jobs,
        workers=tuple(thing for thing in things if isinstance(thing, WorkerView)),
        waiting_to_decode=decode if waiting_to_decode is None else waiting_to_decode,
        may_lose_workers=may_lose,
    )


def shared_workers() -> tuple[WorkerView, WorkerView]:
    """A worker for each of the two phases with a shared queue."""
    return a_worker(90, Phase.ENCODE), a_worker(91, Phase.VAE)


def applied(world: Snapshot, commands: Iterable[Command]) -> Snapshot:
    """The world once *commands* have been carried out, and nothing else has happened."""
    for command in commands:
        world = _after(world, command)
    return world


def _after(world: Snapshot, command: Command) -> Snapshot:
    if isinstance(command, LoseWorker):
        left = tuple(w for w in world.workers if w.incarnation != command.incarnation)
        assert len(left) == len(world.workers) - 1, "a worker is lost once"
        return replace(world, workers=left)
    job, others = command.job, tuple(job for job in world.jobs if job != command.job)
    assert len(others) == len(world.jobs) - 1, f"{command} would be refused: the job is otherwise"
    new = _job_after(command)
    decode = sum(found.state is JobState.DENOISED for found in new)
    decode -= job.state is JobState.DENOISED
    return replace(world, jobs=(*others, *new), waiting_to_decode=world.waiting_to_decode + decode)


def _job_after(command: Command) -> tuple[JobView, ...]:  # noqa: PLR0911 -- one for each
    """What becomes of the command's job; nothing, if it is over."""
    match command:
        case Cancel() | GiveUp() | TimeOut():
            return ()
        case Rescue(job) | Withdraw(job):
            lost = isinstance(command, Rescue)
            return (replace(_waiting(job), worker_losses=job.worker_losses + lost),)
        case TakeAway(job):
            return (replace(_waiting(job), timeouts=job.timeouts + 1),)
        case Send(job, _, group):
            sent = replace(job, attempt=job.attempt + 1, message=Whereabouts.SENT)
            return (replace(sent, group=group),)
        case Resend(job):
            return (replace(job, message=Whereabouts.SENT),)
        case Tell(job, Instruction.CANCEL):
            return (job,)
        case Tell(job, _, group):
            return (replace(job, pending=group if group != job.group else None),)


def _waiting(job: JobView) -> JobView:
    return replace(
        job,
        state=WAITING_STATE[PHASE_OF[job.state]],
        holder=None,
        group=(),
        last_group=job.group,
        silent_s=0.0,
        said_step_s=None,
        dop=0,
        message=Whereabouts.NONE,
    )
