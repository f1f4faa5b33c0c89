"""Random snapshots, such as a database could hold: strategies for hypothesis."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from worlds import a_held_job, a_job, a_sent_job, a_worker, a_world

from ddit_batch.job import HELD_STATES, LIVE_STATES, PHASE_OF, JobState, Phase
from ddit_batch.scheduler.core import Limits
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

MODELS = ("small", "large")
GONE = 1000
"""Workers from this number on are not live any more."""

limits = st.builds(
    Limits,
    look_ahead=st.integers(0, 3),
    decode_backlog=st.integers(0, 4),
    max_worker_losses=st.integers(1, 3),
)

flags = st.sampled_from([False, False, False, True])
"""Rather false."""


@st.composite
def _workers(draw: st.DrawFn) -> tuple[WorkerView, ...]:
    return tuple(
        a_worker(
            number,
            draw(st.sampled_from([Phase.DIT, Phase.DIT, Phase.DIT, *Phase])),
            node=draw(st.sampled_from(["left", "right"])),
            models=frozenset(draw(st.sampled_from([MODELS, MODELS[:1], MODELS[1:]]))),
            draining=draw(flags),
            lease_expired=draw(flags),
        )
        for number in range(draw(st.integers(0, 7)))
    )


@st.composite
def _job(draw: st.DrawFn, number: int, free: dict[Phase, list[WorkerView]]) -> JobView:
    """A job in any live state; who holds one is taken out of *free*."""
    state = draw(st.sampled_from(sorted(LIVE_STATES)))
    phase = PHASE_OF[state]
    gone = a_worker(GONE + number, phase)
    if state in HELD_STATES:
        holder = draw(st.sampled_from([gone, *free[phase]]))
        crew = [holder]
        if holder is not gone:
            free[phase].remove(holder)
            mates = [w for w in free[phase] if w.node == holder.node]
            if state is JobState.DENOISING and mates and draw(flags):
                crew.append(mates[0])
                free[phase].remove(mates[0])
        job = a_held_job(number, state, *crew)
        if holder is gone:
            job = replace(job, group=())
    elif draw(st.booleans()):
        leader = draw(st.sampled_from([gone, *free[phase]]))
        group = (leader.name,) if state is JobState.ENCODED else ()
        job = a_sent_job(number, state, *group, missing=draw(flags))
    else:
        job = a_job(number, state)
    under_way = job.state in HELD_STATES or job.message is not Whereabouts.NONE
    return replace(
        job,
        paused=under_way and draw(flags),
        model=draw(st.sampled_from(MODELS)),
        priority=draw(st.sampled_from([0, 0, 1])),
        worker_losses=draw(st.integers(0, 2)),
        cancel_requested=draw(flags),
    )


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    """A few workers and a few jobs in any state, each worker with at most one job in its hands."""
    workers = draw(_workers())
    free = {phase: [w for w in workers if w.phase is phase] for phase in Phase}
    jobs = tuple(draw(_job(number, free)) for number in range(1, draw(st.integers(1, 12)) + 1))
    decode = sum(job.state is JobState.DENOISED for job in jobs) + draw(st.integers(0, 2))
    return a_world(*workers, *jobs, waiting_to_decode=decode, may_lose=draw(st.booleans()))
