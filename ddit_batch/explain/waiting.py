"""Why a job waits: one function for each waiting state."""

from __future__ import annotations

from collections.abc import Sequence

from ddit_batch.explain.seen import Seen, counted, ordinal
from ddit_batch.job import PHASE_OF, JobState, Phase, WorkerName
from ddit_batch.scheduler.commands import Send
from ddit_batch.snapshot import JobView, StoreState, Whereabouts, WorkerView

_LABEL = {Phase.ENCODE: "encode", Phase.DIT: "DiT", Phase.VAE: "VAE"}

_STORE_FAILS = (
    "The artifact store fails, so no new work is sent but one job at a time that tries it again; "
    "the view job_status says with what."
)


def why_it_waits(seen: Seen) -> list[str]:  # noqa: PLR0911 -- one for each reason
    """Why a job that nobody holds waits."""
    job = seen.job
    if job.cancel_requested or job.paused:
        return [_unwanted(job)]
    if job.message is not Whereabouts.NONE:
        return _sent(seen)
    if any(isinstance(command, Send) for command in seen.record.commands_for(job.job_id)):
        return _resumed(job)
    if seen.record.snapshot.store is not StoreState.WELL:
        return [_STORE_FAILS]
    match job.state:
        case JobState.QUEUED:
            return _for_encode(seen)
        case JobState.ENCODED:
            return _for_dit(seen)
        case _:
            return _for_vae(seen)


def _unwanted(job: JobView) -> str:
    if job.cancel_requested:
        return "A cancel was requested."
    return f"Its batch is paused: `ddit resume {job.batch_id}` has it go on."


def waiting_facts(seen: Seen) -> dict[str, object]:
    """The numbers of a wait: the first of *place* is 1."""
    order = _order(seen)
    place = order.index(seen.job) + 1 if seen.job in order else None
    return {
        "waits_for": str(PHASE_OF[seen.job.state]),
        "message": str(seen.job.message),
        "place": place,
        "waiting": len(order),
        "workers": len(seen.crew),
        "idle_workers": len(seen.idle(seen.crew)),
        "target": list(seen.target),
        "step": seen.job.step,
        "steps": seen.job.steps,
        "optimal_dop": seen.cost.optimal_dop,
    }


def _sent(seen: Seen) -> list[str]:
    job = seen.job
    phase = PHASE_OF[job.state]
    if phase is Phase.DIT and job.group:
        leader = job.group[0]
        owner = seen.owners().get(leader)
        busy = owner is not None and owner is not job
        tail = f", which {owner.job_id} has now" if busy and owner else ""
        said = (
            f"Its message is out to its leader {leader}{tail}; it begins when that worker takes it "
            f"(attempt {job.attempt})."
        )
        return [said, *_resumed(job)]
    able = seen.able(phase)
    said = (
        f"Its message is in the queue {phase} (attempt {job.attempt}); of "
        f"{_serving(able, phase, job.model)}, {_idle(seen, able)}."
    )
    return [said, *_resumed(job)]


def _for_encode(seen: Seen) -> list[str]:
    job, limits = seen.job, seen.record.limits
    lacking = _lack(seen, Phase.ENCODE)
    if lacking:
        return [lacking]
    lacking = _lack(seen, Phase.DIT)
    if lacking:
        return [lacking, "So nothing is encoded ahead."]
    room = limits.look_ahead * len(seen.crew)
    own = [other for other in _order(seen) if other.model == job.model]
    said = (
        f"Enough of {job.model} is encoded ahead: {counted(limits.look_ahead, 'job')} for each of "
        f"{counted(len(seen.crew), 'DiT worker')}, {room} in all; it is the "
        f"{ordinal(own.index(job) + 1)} of {len(own)} that have no workers yet."
    )
    return [said, *seen.who_has(seen.crew)]


def _for_dit(seen: Seen) -> list[str]:
    job, world = seen.job, seen.record.snapshot
    lacking = _lack(seen, Phase.DIT)
    if lacking:
        return [lacking, *_resumed(job)]
    order = [other for other in _order(seen) if other.state is JobState.ENCODED]
    place = "It is the only encoded job that waits for workers."
    if len(order) > 1:
        place = (
            f"It is the {ordinal(order.index(job) + 1)} of {len(order)} encoded jobs that wait for "
            "workers, in the policy's order."
        )
    if not seen.target:
        return [place, _workers(seen), *seen.who_has(seen.crew), *_resumed(job)]
    wanted = ", ".join(seen.target)
    if world.waiting_to_decode >= seen.record.limits.decode_backlog:
        vae = [w for w in world.workers if w.phase is Phase.VAE and not w.draining]
        said = (
            f"The VAE is behind: {counted(world.waiting_to_decode, 'job')} wait to be decoded, and "
            f"no DiT starts while {seen.record.limits.decode_backlog} or more do "
            f"(VAE workers online: {len(vae)}). After that the policy gives it {wanted}."
        )
        return [said, *_resumed(job)]
    return [f"The policy gives it {wanted}.", *_not_free_yet(seen, seen.target), *_resumed(job)]


def _for_vae(seen: Seen) -> list[str]:
    if seen.is_the_policys:
        if seen.target:
            return [f"The policy gives it {seen.target[0]} to be decoded by."]
        decoders = [worker for worker in seen.crew if worker.decodes]
        if not decoders:
            return [_lack(seen, Phase.VAE)]
        said = (
            f"It is denoised. {counted(len(decoders), 'worker')} could decode it, and "
            f"{len(seen.idle(decoders))} of them are idle."
        )
        return [said, *seen.who_has(decoders)]
    able = seen.able(Phase.VAE)
    said = (
        f"It is denoised and follows its DiT in the queue vae; of "
        f"{_serving(able, Phase.VAE, seen.job.model)}, {_idle(seen, able)}."
    )
    return [said]


def _order(seen: Seen) -> list[JobView]:
    """The jobs without workers, as the policy would give them some."""
    before_dit = {JobState.QUEUED, JobState.ENCODING, JobState.ENCODED}
    jobs = [job for job in seen.record.snapshot.jobs if job.state in before_dit and not job.group]
    return seen.policy.sequence(seen.record.snapshot, jobs)


def _lack(seen: Seen, phase: Phase) -> str:
    """That no worker of a phase serves its model; empty if one does."""
    if seen.able(phase):
        return ""
    online = [worker for worker in seen.record.snapshot.workers if worker.phase is phase]
    label = _LABEL[phase]
    if not online:
        return f"No {label} worker is online."
    draining = sum(worker.draining for worker in online)
    tail = f"; {draining} of them take no new work" if draining else ""
    return f"No {label} worker takes jobs of {seen.job.model} ({len(online)} online{tail})."


def _workers(seen: Seen) -> str:
    crew = seen.crew
    idle = seen.idle(crew)
    text = f"Of {_serving(crew, Phase.DIT, seen.job.model)}, {_idle(seen, crew)}"
    return f"{text} ({_named(idle)}); the policy gave none to this job." if idle else f"{text}."


def _serving(workers: Sequence[WorkerView], phase: Phase, model: str) -> str:
    """``2 DiT workers that serve tiny-wan``."""
    verb = "serves" if len(workers) == 1 else "serve"
    return f"{counted(len(workers), f'{_LABEL[phase]} worker')} that {verb} {model}"


def _idle(seen: Seen, workers: Sequence[WorkerView]) -> str:
    """``none is idle``, ``1 is idle``, ``2 are idle``."""
    count = len(seen.idle(workers))
    return f"{count} are idle" if count > 1 else f"{count or 'none'} is idle"


def _not_free_yet(seen: Seen, wanted: tuple[WorkerName, ...]) -> list[str]:
    """Who still has the workers that the policy has chosen."""
    owners = seen.owners()
    others = {owners[name].job_id for name in wanted if name in owners} - {seen.job.job_id}
    if not others:
        return []
    return [f"It waits until {', '.join(sorted(others))} lets them go at a step boundary."]


def _resumed(job: JobView) -> list[str]:
    if not job.step or job.state is not JobState.ENCODED:
        return []
    on = f" on {', '.join(job.last_group)}" if job.last_group else ""
    return [f"It was denoised before{on}; it goes on at step {job.step} of {job.steps}."]


def _named(workers: tuple[WorkerView, ...]) -> str:
    most = 8
    names = [worker.name for worker in workers[:most]]
    return ", ".join([*names, *(["..."] if len(workers) > most else [])])
