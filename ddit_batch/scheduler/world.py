"""What becomes of a snapshot when something is done about its jobs. Pure; for the core's stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ddit_batch.job import PHASE_OF, WAITING_STATE, JobState
from ddit_batch.snapshot import JobView, Snapshot, StoreState, Whereabouts

_DENOISED = JobState.DENOISED
_NO_MESSAGE = Whereabouts.NONE


def waiting_again(job: JobView) -> JobView:
    """The job as it will be once it has been taken back."""
    return replace(
        job,
        state=WAITING_STATE[PHASE_OF[job.state]],
        holder=None,
        group=(),
        pending=None,
        last_group=job.group,
        silent_s=0.0,
        said_step_s=None,
        dop=0,
        message=Whereabouts.NONE,
    )


def with_jobs(world: Snapshot, gone: Iterable[JobView], new: Iterable[JobView]) -> Snapshot:
    """The world without the jobs *gone*, by their ids, and with those that are *new*."""
    gone, new = tuple(gone), tuple(new)
    if not gone and not new:
        return world
    out = {job.job_id for job in gone}
    jobs = (*(job for job in world.jobs if job.job_id not in out), *new)
    to_decode = world.waiting_to_decode + _to_decode(new) - _to_decode(gone)
    return replace(world, jobs=jobs, waiting_to_decode=to_decode)


def held_back(world: Snapshot) -> Snapshot:
    """The world as the stages that send see it: while the store fails, without what waits.

    Unless the store may work again and nobody is under way, who would find out with the next that
    it writes: then the core sends one job to find out.
    """
    if world.store is StoreState.WELL:
        return world
    waiting = [job for job in world.jobs if not job.held and job.message is _NO_MESSAGE]
    if world.store is StoreState.PROBE and len(waiting) == len(world.jobs):
        return world
    return replace(with_jobs(world, waiting, []), store=StoreState.FAILING)


def _to_decode(jobs: tuple[JobView, ...]) -> int:
    return sum(job.state is _DENOISED for job in jobs)
