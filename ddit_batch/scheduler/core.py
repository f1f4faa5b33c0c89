"""The decision core: a snapshot goes in, commands come out. The whole control logic is here.

Rule 1: pure. No clock, no dice, no database, no state between calls: a restarted scheduler decides
as before, and a recorded snapshot replays to the same commands.
Rule 2: level-triggered. A decision looks at what is, never at what has just happened; a lost event,
a repeated one or a crash between two commands is mended by the next decision.
Rule 3: the driver carries the commands out in order, each as a compare-and-set. One that finds its
job moved on changes nothing, and the next decision sees why. What a running job was told to do at
its next step boundary is not decided again: a driver whose messages may get lost repeats it.

Theory of operation. The stages run in order, and each hands the world as it will be after its own
commands to the next: workers whose lease ran out are lost; their jobs go back one phase; cancelled
jobs that nobody holds end; what is under way of paused batches is called back; messages to workers
that are gone are withdrawn, lost ones sent again; while the artifact store fails, what waits is
held back; then the policy places jobs on DiT workers, and the shared queues of the other two
phases are filled within their bounds. A stage that has nothing to do looks at each job once and
copies nothing: a simulation of a day asks for a hundred thousand decisions, and most change one
job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from operator import attrgetter

from ddit_batch.job import (
    HELD_STATES,
    PHASE_OF,
    JobId,
    JobState,
    Phase,
    WorkerName,
    queue_of,
)
from ddit_batch.policy.base import Policy, dit_workers
from ddit_batch.policy.roster import roster_of
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
from ddit_batch.scheduler.hanging import HangLimits, longest_silence_s
from ddit_batch.scheduler.world import held_back, waiting_again, with_jobs
from ddit_batch.snapshot import (
    Instruction,
    JobView,
    Snapshot,
    StoreState,
    Whereabouts,
    order_key,
)

# Names for what is asked of every job in every decision: a member that is looked up in its enum
# costs ten times as much (Python 3.11).
_NO_MESSAGE = Whereabouts.NONE
_QUEUED, _ENCODING, _ENCODED = JobState.QUEUED, JobState.ENCODING, JobState.ENCODED
_DENOISING, _DENOISED = JobState.DENOISING, JobState.DENOISED
_silent_s, _paused = attrgetter("silent_s"), attrgetter("paused")
_cancel_requested = attrgetter("cancel_requested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds within which the core fills queues and tries again."""

    look_ahead: int
    """Jobs of a model encoded, or on their way to it, for each DiT worker that serves it."""
    decode_backlog: int
    """No new DiT starts while this many jobs wait for a VAE worker."""
    max_worker_losses: int
    """Lost workers after which the job is held to be what kills them."""
    max_timeouts: int = 3
    """Workers that have hung after which the job fails."""
    hang: HangLimits = field(default_factory=HangLimits)


Stage = tuple[Snapshot, list[Command]]


def decide(snapshot: Snapshot, policy: Policy, limits: Limits) -> tuple[Command, ...]:
    """What to do now, in order."""
    world = snapshot
    commands: list[Command] = []
    stages: tuple[Callable[[Snapshot], Stage], ...] = (
        _lose_workers,
        lambda world: _rescue(world, limits),
        lambda world: _end_hung(world, policy, limits),
        _cancel,
        _pause,
        _mend_messages,
        _hold_back_what_waits,
        lambda world: _place(world, policy, limits),
        lambda world: _fill_encode(world, policy, limits),
        _fill_vae,
    )
    for stage in stages:
        world, new = stage(world)
        commands += new
    return tuple(commands if world.store is not StoreState.PROBE else _with_one_send(commands))


def _lose_workers(world: Snapshot) -> Stage:
    lost = roster_of(world.workers).expired
    if not (lost and world.may_lose_workers):
        return world, []
    left = tuple(w for w in world.workers if not w.lease_expired)
    commands: list[Command] = [
        LoseWorker(w.incarnation) for w in sorted(lost, key=lambda w: w.incarnation)
    ]
    return replace(world, workers=left), commands


def _rescue(world: Snapshot, limits: Limits) -> Stage:
    """Every held job whose holder is not among the live incarnations."""
    live = roster_of(world.workers).incarnations
    orphans = [job for job in world.jobs if job.holder not in live and job.state in HELD_STATES]
    if not orphans:
        return world, []
    commands: list[Command] = []
    after: list[JobView] = []
    for job in sorted(orphans, key=order_key):
        if job.worker_losses + 1 >= limits.max_worker_losses:
            commands.append(GiveUp(job))
        else:
            commands.append(Rescue(job))
            after.append(waiting_again(replace(job, worker_losses=job.worker_losses + 1)))
    return with_jobs(world, orphans, after), commands


def _end_hung(world: Snapshot, policy: Policy, limits: Limits) -> Stage:
    """Every job whose worker lives, but does not go on with it.

    Without a word that can be believed (after a take-over, say) nobody is silent, so none is hung.
    """
    if not any(map(_silent_s, world.jobs)):
        return world, []
    hung = [
        job
        for job in world.jobs
        if job.silent_s > 0
        and job.held
        and job.silent_s > longest_silence_s(job, policy.costs, limits.hang)
    ]
    if not hung:
        return world, []
    commands: list[Command] = []
    after: list[JobView] = []
    for job in sorted(hung, key=order_key):
        if job.timeouts + 1 >= limits.max_timeouts:
            commands.append(TimeOut(job))
        else:
            commands.append(TakeAway(job))
            after.append(replace(waiting_again(job), timeouts=job.timeouts + 1))
    holders = {job.holder for job in hung}
    workers = tuple(
        replace(worker, draining=True) if worker.incarnation in holders else worker
        for worker in world.workers
    )
    return replace(with_jobs(world, hung, after), workers=workers), commands


def _cancel(world: Snapshot) -> Stage:
    if not any(map(_cancel_requested, world.jobs)):
        return world, []
    unwanted = [job for job in world.jobs if job.cancel_requested]
    free = sorted((job for job in unwanted if not job.held), key=order_key)
    held = sorted((job for job in unwanted if job.held), key=order_key)
    commands: list[Command] = [Cancel(job) for job in free]
    commands += [Tell(job, Instruction.CANCEL, job.group) for job in held]
    return with_jobs(world, free, []), commands


def _pause(world: Snapshot) -> Stage:
    """Call back what was under way when its batch was paused; no later stage may send it on.

    A message is made void. Who denoises gives the job back at the next step boundary; encoding and
    decoding, which have none, end by themselves, and what comes after them is not claimed.
    """
    if not any(map(_paused, world.jobs)):
        return world, []
    paused = [job for job in world.jobs if job.paused and not job.cancel_requested]
    free = sorted((job for job in paused if not job.held), key=order_key)
    running = sorted((job for job in paused if job.state is _DENOISING), key=order_key)
    commands: list[Command] = [Withdraw(job) for job in free if job.message is not _NO_MESSAGE]
    commands += [Tell(job, Instruction.RELEASE) for job in running]
    called_back = [replace(job, pending=()) for job in running]
    return with_jobs(world, [*free, *running], called_back), commands


def _mend_messages(world: Snapshot) -> Stage:
    """Messages to workers that are gone are withdrawn; messages that are gone are sent again."""
    sent = [job for job in world.jobs if job.message is not _NO_MESSAGE]
    if not sent:
        return world, []
    names = {worker.name for worker in world.workers if not worker.draining}
    astray = [job for job in sent if job.group and not names.issuperset(job.group)]
    lost = [job for job in sent if job.message is Whereabouts.MISSING and job not in astray]
    commands: list[Command] = [Withdraw(job) for job in sorted(astray, key=order_key)]
    commands += [Resend(job) for job in sorted(lost, key=order_key)]
    return with_jobs(world, astray, [waiting_again(job) for job in astray]), commands


def _hold_back_what_waits(world: Snapshot) -> Stage:
    return held_back(world), []


def _with_one_send(commands: list[Command]) -> list[Command]:
    """*commands*, but of all that is to be sent only the first: the probe."""
    sends = [command for command in commands if isinstance(command, Send)]
    return [c for c in commands if not isinstance(c, Send) or c is sends[0]]


def _place(world: Snapshot, policy: Policy, limits: Limits) -> Stage:
    """Turn the policy's targets into the difference from what is, and from what was told.

    A worker that another job has, or was told to take, is not given before that job has let it go:
    the command waits for a later decision. So no worker is ever in two groups.
    """
    targets = policy.plan(world)
    target_of = targets.get
    otherwise = [
        job
        for job in world.jobs
        if target_of(job.job_id, ()) != job.group or job.pending is not None
    ]
    changing = [job for job in otherwise if _is_to_change(job, target_of(job.job_id, ()))]
    if not changing:
        return world, []
    may_start = world.waiting_to_decode < limits.decode_backlog
    taken = _taken(world, {name for job in changing for name in target_of(job.job_id, ())})
    commands: list[Command] = []
    started: list[JobView] = []
    for job in sorted(changing, key=order_key):
        target = target_of(job.job_id, ())
        free = all(taken.get(name, job.job_id) == job.job_id for name in target)
        if job.state is _DENOISING:
            commands += _steer(job, target, free=free)
        elif free and (may_start or job.state is _DENOISED):
            commands.append(Send(job, queue_of(PHASE_OF[job.state], target[0]), target))
            started.append(job)
        else:
            continue
        taken.update(dict.fromkeys(target if free else (), job.job_id))
    return with_jobs(world, started, []), commands


def _taken(world: Snapshot, wanted: set[WorkerName]) -> dict[WorkerName, JobId]:
    """Whose each worker is, at least of those *wanted*.

    If it was sent a job while another has it, it is the other's.
    """
    not_wanted = wanted.isdisjoint
    claims = [
        job
        for job in world.jobs
        if not (not_wanted(job.group) and (job.pending is None or not_wanted(job.pending)))
    ]
    claims.sort(key=attrgetter("seq"), reverse=True)
    claims.sort(key=lambda job: job.state in HELD_STATES)
    taken: dict[WorkerName, JobId] = {}
    for job in claims:
        taken.update(dict.fromkeys(job.group, job.job_id))
        if job.pending:
            taken.update(dict.fromkeys(job.pending, job.job_id))
    return taken


def _is_to_change(job: JobView, target: tuple[WorkerName, ...]) -> bool:
    """Whether a target calls for a command: the job could start, or was told something else."""
    if job.state is _DENOISING:
        return _wanted(job, target) != job.next_group and not (job.cancel_requested or job.paused)
    return (
        bool(target)
        and not job.group
        and (job.state is _ENCODED or job.state is _DENOISED)
        and job.message is _NO_MESSAGE
    )


def _wanted(job: JobView, target: tuple[WorkerName, ...]) -> tuple[WorkerName, ...]:
    """What a running job is to have. Its leader cannot change: to move, it is given back."""
    return target if target[:1] == job.group[:1] else ()


def _steer(job: JobView, target: tuple[WorkerName, ...], *, free: bool) -> list[Command]:
    """What to tell a running job."""
    wanted = _wanted(job, target)
    if not wanted:
        return [Tell(job, Instruction.RELEASE)]
    # Its own workers need not be free: it has them, and is to forget what it was told.
    return [Tell(job, Instruction.CONTINUE, wanted)] if free or wanted == job.group else []


def _fill_encode(world: Snapshot, policy: Policy, limits: Limits) -> Stage:
    """For each model, encode the jobs that the policy would start next, a bounded number ahead.

    A bound over all models would let the jobs of one, waiting for its workers, idle the others; one
    that counts what is encoded already, whatever its order, would let long jobs that wait keep out
    a short one that should overtake them.
    """
    if not any(map(_is_unsent, world.jobs)):
        return world, []
    served = _models_served(world, Phase.ENCODE)
    room = Counter({job.model: 0 for job in world.jobs})
    for worker in dit_workers(world):
        room.update(dict.fromkeys(worker.models, limits.look_ahead))
    commands: list[Command] = []
    for job in policy.sequence(world, [job for job in world.jobs if _is_unplaced(job)]):
        if room[job.model] <= 0:
            continue
        room[job.model] -= 1
        if _is_unsent(job) and job.model in served:
            commands.append(Send(job, queue_of(Phase.ENCODE)))
    return world, commands


def _is_unsent(job: JobView) -> bool:
    """Whether the job waits for its encode phase, and nobody was told."""
    return job.state is _QUEUED and job.message is _NO_MESSAGE


def _is_unplaced(job: JobView) -> bool:
    """Whether the job has no workers for its DiT phase yet, encoded or not."""
    if job.state is _ENCODED:
        return not job.group
    return job.state is _QUEUED or job.state is _ENCODING


def _fill_vae(world: Snapshot) -> Stage:
    """Send what came back from a VAE worker; a first attempt follows its DiT by itself.

    Where DiT workers decode, the policy has placed it.
    """
    waiting = [job for job in world.jobs if job.state is _DENOISED and job.message is _NO_MESSAGE]
    if not waiting:
        return world, []
    served = _models_served(world, Phase.VAE)
    commands: list[Command] = [
        Send(job, queue_of(Phase.VAE))
        for job in sorted(waiting, key=order_key)
        if job.model in served
    ]
    return world, commands


def _models_served(world: Snapshot, phase: Phase) -> frozenset[str]:
    able = [w.models for w in world.workers if w.phase is phase and not w.draining]
    return frozenset().union(*able)
