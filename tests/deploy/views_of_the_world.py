"""Values of the scheduler's world, with what a test does not care about filled in."""

from __future__ import annotations

from ddit_batch.job import Incarnation, JobId, JobState, Phase, Shape, WorkerName
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView


def a_worker(number: int, **changes: object) -> WorkerView:
    given: dict[str, object] = {
        "name": WorkerName(f"dit-{number}@unit"),
        "incarnation": Incarnation(number),
        "phase": Phase.DIT,
        "host": "unit",
        "node": "unit",
        "models": frozenset({"tiny-wan"}),
        "draining": False,
        "lease_expired": False,
    }
    return WorkerView(**(given | changes))  # type: ignore[arg-type]


def a_job(number: int = 1, **changes: object) -> JobView:
    """A job that worker 1 denoises alone."""
    given: dict[str, object] = {
        "job_id": JobId(f"b1-{number:06}"),
        "batch_id": "b1",
        "state": JobState.DENOISING,
        "priority": 0,
        "seq": number,
        "model": "tiny-wan",
        "shape": Shape(480, 832, 81),
        "steps": 50,
        "step": 0,
        "attempt": 1,
        "dop": 1,
        "message": Whereabouts.NONE,
        "group": (WorkerName("dit-1@unit"),),
        "holder": Incarnation(1),
        "worker_losses": 0,
        "cancel_requested": False,
        "arrived_s": 0.0,
    }
    return JobView(**(given | changes))  # type: ignore[arg-type]


def a_world(*things: JobView | WorkerView) -> Snapshot:
    return Snapshot(
        now_s=0.0,
        jobs=tuple(thing for thing in things if isinstance(thing, JobView)),
        workers=tuple(thing for thing in things if isinstance(thing, WorkerView)),
        waiting_to_decode=0,
        may_lose_workers=True,
    )
