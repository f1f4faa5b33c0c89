"""Why a job that is worked on has the dop that it has."""

from __future__ import annotations

from ddit_batch.cost_model import Cost, Live
from ddit_batch.durations import shown_duration
from ddit_batch.explain.seen import Seen, counted
from ddit_batch.job import JobState
from ddit_batch.policy.starvation import starvation_s
from ddit_batch.snapshot import WorkerView


def why_its_dop(seen: Seen) -> list[str]:
    """What a job has, what more would bring, and why it has no more."""
    if seen.job.state is not JobState.DENOISING:
        return _in_one_worker(seen)
    return [_has(seen), _dops(seen), *_starves(seen), *_doubling(seen), *_why_no_more(seen)]


def running_facts(seen: Seen) -> dict[str, object]:
    """The numbers behind the sentences; *doubling* is None if there is no wider legal dop."""
    job, cost = seen.job, seen.cost
    if job.state is not JobState.DENOISING:
        return {"holder": job.holder}
    dop = _dop(seen)
    wider = _wider(cost, dop)
    return {
        "dop": job.dop,
        "workers": list(job.group),
        "next_workers": list(job.next_group),
        "target": list(seen.target),
        "step": job.step,
        "steps": job.steps,
        "step_s": cost.at(dop),
        "left_s": seen.left_s(job),
        "starvation_s": starvation_s(job, cost),
        "legal_dops": list(cost.dops),
        "optimal_dop": cost.optimal_dop,
        "fastest_dop": cost.fastest_dop,
        "doubling": {
            "dop": wider,
            "saves_s": _saved_s(seen, wider),
            "gpu_seconds": _more_gpu_s(seen, wider),
        }
        if wider
        else None,
        "idle_workers_of_its_node": len(seen.idle(_mates(seen))),
    }


def _in_one_worker(seen: Seen) -> list[str]:
    job, cost = seen.job, seen.cost
    names = {worker.incarnation: worker.name for worker in seen.record.snapshot.workers}
    name = names.get(job.holder) if job.holder is not None else None
    verb, takes_s = (
        ("encodes", cost.encode_s) if job.state is JobState.ENCODING else ("decodes", cost.decode_s)
    )
    if name is None:
        return ["The worker that held it is gone; the scheduler takes it back."]
    said = (
        f"{name} {verb} it alone; one worker takes about {shown_duration(takes_s)} for that, and "
        "more would not help."
    )
    return [said]


def _has(seen: Seen) -> str:
    job, cost, dop = seen.job, seen.cost, _dop(seen)
    if not job.group:
        return (
            f"Its leader is gone; the scheduler takes it back, and it goes on from its last "
            f"checkpoint (step {job.step} of {job.steps} was done)."
        )
    many = f"{', '.join(job.group)}, of which {job.group[0]} leads," if dop > 1 else job.group[0]
    verb = "denoise" if dop > 1 else "denoises"
    return (
        f"{many} {verb} it (dop {job.dop}): step {job.step} of {job.steps} is done; a step takes "
        f"{_seconds(cost.at(dop))} ({_known(cost, dop)}), so {counted(job.steps_left, 'step')} "
        f"take about {shown_duration(seen.left_s(job))} more."
    )


def _dops(seen: Seen) -> str:
    cost, job = seen.cost, seen.job
    legal = ", ".join(map(str, cost.dops))
    if len(cost.dops) == 1:
        return f"For {job.model} at {job.shape} only dop {legal} is legal."
    return (
        f"For {job.model} at {job.shape} the dops {legal} are legal; the optimal one (B) is "
        f"{cost.optimal_dop} with {_seconds(cost.at(cost.optimal_dop))} a step, the fastest "
        f"{cost.fastest_dop} with {_seconds(cost.at(cost.fastest_dop))}."
    )


def _starves(seen: Seen) -> list[str]:
    job, cost = seen.job, seen.cost
    lost_s = starvation_s(job, cost)
    if not lost_s:
        return []
    said = (
        f"Its starvation time is {shown_duration(lost_s)}: "
        f"{counted(job.step - job.granted_step, 'step')} since it was last given workers, each "
        f"{_seconds(lost_s / (job.step - job.granted_step))} slower than at its optimal dop."
    )
    return [said]


def _doubling(seen: Seen) -> list[str]:
    dop = _dop(seen)
    wider = _wider(seen.cost, dop)
    if not wider or not seen.job.steps_left:
        return []
    saved_s, more = _saved_s(seen, wider), _more_gpu_s(seen, wider)
    saves = f"would save {shown_duration(saved_s)}" if saved_s > 0 else "would save no time"
    price = (
        f"cost {more:.3g} GPU-seconds more" if more >= 0 else f"take {-more:.3g} GPU-seconds less"
    )
    said = (
        f"Dop {wider} for the rest of it {saves} and {price} (efficiency "
        f"{seen.cost.efficiency(wider):.0%} after {seen.cost.efficiency(dop):.0%})."
    )
    return [said]


def _why_no_more(seen: Seen) -> list[str]:
    """The first of the reasons that hold: what is coming, what cannot be, what nobody can give."""
    job, cost, dop = seen.job, seen.cost, _dop(seen)
    if not job.group:
        return []
    if job.pending is not None:
        what = f"have {', '.join(job.pending)}" if job.pending else "give all of them back"
        return [f"From its next step boundary it is to {what}."]
    if seen.target != job.group:
        return []  # what this decision did about it is said already
    wider = next((legal for legal in cost.dops if legal > dop), None)
    if wider is None:
        return [f"It has no more, because dop {dop} is the largest that is legal for it."]
    if dop >= cost.fastest_dop:
        return [f"It has no more, because its steps are fastest at dop {cost.fastest_dop}."]
    return _for_want_of_workers(seen, wider)


def _for_want_of_workers(seen: Seen, wider: int) -> list[str]:
    mates, dop = _mates(seen), len(seen.job.group)
    node = mates[0].node if mates else "its node"
    if len(mates) < wider:
        said = (
            f"It has no more, because groups stay inside a node, and {node} has "
            f"{counted(len(mates), 'worker')} that serve {seen.job.model}; the next legal dop is "
            f"{wider}."
        )
        return [said]
    idle = seen.idle(mates)
    given = {name for group in seen.plan.values() for name in group}
    free = [worker for worker in idle if worker.name not in given]
    if dop + len(free) >= wider:
        said = (
            f"{counted(len(free), 'worker')} of {node} were idle, enough for dop {wider}; the "
            f"policy gave it no more."
        )
        return [said]
    taken = len(idle) - len(free)
    idle_words = (
        f"{len(free)} stay idle" if free else "none is idle" if not taken else "none stays idle"
    )
    others = f", and {counted(taken, 'idle worker')} went to other jobs" if taken else ""
    said = (
        f"It has no more, because dop {wider} takes {counted(wider - dop, 'more worker')} of "
        f"{node}, where {idle_words}{others}."
    )
    return [said, *seen.who_has(mates)]


def _mates(seen: Seen) -> tuple[WorkerView, ...]:
    """The workers of its node that serve its model, its own among them."""
    node = next((w.node for w in seen.record.snapshot.workers if w.name in seen.job.group), None)
    return tuple(worker for worker in seen.crew if worker.node == node)


def _dop(seen: Seen) -> int:
    """The legal dop at which it counts: a lost worker may have left another one."""
    return seen.cost.widest(max(seen.job.dop, 1))


def _wider(cost: Cost, dop: int) -> int | None:
    """Twice its dop, or if that is not legal the next legal one; None if there is none."""
    return 2 * dop if 2 * dop in cost.dops else next((d for d in cost.dops if d > dop), None)


def _saved_s(seen: Seen, wider: int) -> float:
    """Seconds that the rest of it would take less at dop *wider*."""
    return seen.job.steps_left * (seen.cost.at(_dop(seen)) - seen.cost.at(wider))


def _more_gpu_s(seen: Seen, wider: int) -> float:
    """GPU-seconds that the rest of it would take more at dop *wider*."""
    cost, dop = seen.cost, _dop(seen)
    return seen.job.steps_left * (wider * cost.at(wider) - dop * cost.at(dop))


def _known(cost: Cost, dop: int) -> str:
    """How the seconds at a dop are known."""
    number = cost.dops.index(dop)
    if cost.live and cost.live[number] is Live.OBSERVED:
        return "as live steps took"
    basis = cost.bases[number] if cost.bases else cost.basis
    refined = cost.live and cost.live[number] is Live.CARRIED
    return f"{basis} in its profile" + (", corrected by live steps" if refined else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"
