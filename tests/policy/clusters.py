"""Snapshots of clusters whose DiT workers decode too: by hand, and random ones for hypothesis."""

from __future__ import annotations

from dataclasses import replace

from fake_costs import P144, P240, P360
from hypothesis import strategies as st
from worlds import a_held_job, a_job, a_sent_job, a_worker, a_world

from ddit_batch.job import JobState, Phase, WorkerName
from ddit_batch.policy.base import Policy
from ddit_batch.snapshot import JobView, Snapshot, WorkerView

S = JobState
SORA, OTHER = "open-sora", "other"
BOTH = frozenset({SORA, OTHER})
STEPS = 30


def crew(count: int, **changes: object) -> list[WorkerView]:
    """*count* DiT workers of one node that decode too, numbered from 0."""
    return [a_worker(n, **{"models": BOTH, "decodes": True, **changes}) for n in range(count)]


def waiting(number: int, shape: object, **changes: object) -> JobView:
    """Job *number* of the paper's model, encoded; nobody denoises it yet."""
    return a_job(number, S.ENCODED, model=SORA, shape=shape, steps=STEPS, **changes)


def running(number: int, shape: object, *group: WorkerView, **changes: object) -> JobView:
    """Job *number* of the paper's model, denoised by *group*."""
    more = {"model": SORA, "shape": shape, "steps": STEPS, **changes}
    return a_held_job(number, S.DENOISING, *group, **more)


def denoised(number: int, shape: object, *last_group: WorkerView, **changes: object) -> JobView:
    """Job *number* of the paper's model, whose DiT phase *last_group* has just ended."""
    last = tuple(worker.name for worker in last_group)
    more = {"model": SORA, "shape": shape, "steps": STEPS, "step": STEPS, **changes}
    return a_job(number, S.DENOISED, last_group=last, **more)


def decoding(number: int, shape: object, *group: WorkerView) -> JobView:
    """Job *number* of the paper's model, decoded by the first of *group*; the others are held."""
    names = tuple(worker.name for worker in group)
    more = {"model": SORA, "shape": shape, "steps": STEPS, "step": STEPS, "group": names}
    return replace(a_held_job(number, S.DECODING, *group), **more)


def plan(policy: Policy, *things: object) -> dict[int, list[int]]:
    """The numbers of the workers that each job should have, by the job's number."""
    return {
        int(job[-6:]): [int(name.partition("-")[2].partition("@")[0]) for name in group]
        for job, group in policy.plan(a_world(*things)).items()
    }


# random ones

rarely = st.sampled_from([False] * 5 + [True])
shapes = st.sampled_from([P144, P240, P360])
states = st.sampled_from(
    [S.ENCODED] * 4 + [S.DENOISING] * 4 + [S.DENOISED] * 2 + [S.DECODING, S.QUEUED]
)


@st.composite
def _workers(draw: st.DrawFn) -> tuple[WorkerView, ...]:
    decodes = draw(st.sampled_from([st.just(True), st.just(False), st.booleans()]))
    alike = draw(st.booleans())
    sets = st.sampled_from([BOTH] if alike else [BOTH, BOTH, {SORA}, {OTHER}])
    workers = [
        a_worker(
            number,
            node=draw(st.sampled_from(["left", "left", "right"])),
            models=frozenset(draw(sets)),
            draining=draw(rarely),
            decodes=draw(decodes),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    if draw(rarely):
        workers.append(a_worker(90, Phase.VAE, models=frozenset(draw(sets))))
    return tuple(workers)


def _taken(draw: st.DrawFn, model: str, free: list[WorkerView], most: int = 8) -> list[WorkerView]:
    """Up to *most* of the *free* workers of one node that serve *model*; free no longer."""
    able = [w for w in free if model in w.models]
    if not able:
        return []
    first = draw(st.sampled_from(able))
    able = [first, *(w for w in able if w.node == first.node and w is not first)]
    legal = [dop for dop in (1, 2, 4, 8) if dop <= min(len(able), most)]
    taken = able[: draw(st.sampled_from(legal))]
    for worker in taken:
        free.remove(worker)
    return taken


def _running(draw: st.DrawFn, job: JobView, free: list[WorkerView]) -> JobView:
    group = _taken(draw, job.model, free)
    if not group:
        return job
    names = tuple(worker.name for worker in group)
    step = draw(st.integers(0, STEPS - 1))
    pending = None
    if draw(rarely):
        pending = names[: draw(st.sampled_from([n for n in (0, 1, 2, 4) if n < len(names)]))]
    elif draw(rarely):
        same_node = [w for w in free if w.node == group[0].node]
        more = _taken(draw, job.model, same_node, most=len(names))
        for worker in more:
            free.remove(worker)
        pending = (*names, *(w.name for w in more)) if len(more) == len(names) else None
    if draw(rarely) and len(names) > 1:
        lost = draw(st.sampled_from(names[1:]))
        names = tuple(WorkerName("dit-999@host") if name == lost else name for name in names)
    return replace(
        job,
        state=S.DENOISING,
        holder=group[0].incarnation,
        group=names,
        dop=len(names),
        attempt=1,
        step=step,
        granted_step=draw(st.integers(0, step)),
        pending=pending,
        cancel_requested=draw(rarely),
    )


def _decoding(draw: st.DrawFn, job: JobView, free: list[WorkerView]) -> JobView:
    group = _taken(draw, job.model, free)
    if not group:
        return job
    return replace(
        job,
        state=S.DECODING,
        holder=group[0].incarnation,
        group=tuple(worker.name for worker in group),
        attempt=2,
        step=STEPS,
    )


@st.composite
def _job(
    draw: st.DrawFn, number: int, workers: tuple[WorkerView, ...], free: list[WorkerView]
) -> JobView:
    """A job in any state but encoding; whom it has is taken out of *free*."""
    state = draw(states)
    job = a_job(
        number,
        S.QUEUED,
        model=draw(st.sampled_from([SORA, SORA, OTHER])),
        shape=draw(shapes),
        steps=STEPS,
        priority=draw(st.sampled_from([0, 0, 1])),
    )
    if state is S.DENOISING:
        return _running(draw, job, free)
    if state is S.DECODING:
        return _decoding(draw, job, free)
    if state is S.ENCODED and draw(rarely):
        group = _taken(draw, job.model, free)
        sent = a_sent_job(number, state, *(worker.name for worker in group))
        return replace(sent, model=job.model, shape=job.shape, steps=STEPS) if group else job
    nodes = sorted({worker.node for worker in workers})
    last = draw(st.sampled_from(nodes)) if nodes and draw(st.booleans()) else None
    had = [worker.name for worker in workers if worker.node == last]
    more = {"step": STEPS} if state is S.DENOISED else {}
    return replace(job, state=state, last_group=tuple(draw(st.permutations(had))[:4]), **more)


@st.composite
def clusters(draw: st.DrawFn) -> Snapshot:
    """Up to twelve DiT workers on two nodes, and jobs of two models that have them or want them."""
    workers = draw(_workers())
    free = [worker for worker in workers if worker.phase is Phase.DIT]
    jobs = [draw(_job(n, workers, free)) for n in range(1, draw(st.integers(1, 14)) + 1)]
    return a_world(*workers, *jobs)
