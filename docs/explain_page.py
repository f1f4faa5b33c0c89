"""The part of ``explain.md`` that the code can produce: what it says of a small cluster."""

from __future__ import annotations

from ddit_batch.decision_record import record_of
from ddit_batch.explain import explain
from ddit_batch.job import Incarnation, JobId, JobState, Phase, Shape, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.profile import known_profiles, make_cost_model
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

PROFILE = "ddit-opensora-h800"
SHAPE = Shape(360, 640, 51)
LIMITS = Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5)


def example() -> str:
    """A node of four GPUs under the paper's policy: two jobs run at dop 2, one waits."""
    profile = known_profiles()[PROFILE]
    policy = make_policy("ddit", make_cost_model((profile,)))
    workers = tuple(_worker(number, profile.models[0]) for number in range(4))
    model = profile.models[0]
    jobs = (
        _running(1, model, workers[:2], step=21),
        _running(2, model, workers[2:], step=8),
        _job(3, model, state=JobState.ENCODED),
    )
    world = Snapshot(
        now_s=100.0, jobs=jobs, workers=workers, waiting_to_decode=0, may_lose_workers=True
    )
    record = record_of(world, policy, LIMITS, decide(world, policy, LIMITS))
    said = [explain(record, job.job_id) for job in jobs[1:]]
    blocks = [(e.job_id, e.state, e.sentences) for e in said if e is not None]
    return "\n\n".join(
        "\n".join(["```text", f"{job_id}: {state}", *(f"  {s}" for s in sentences), "```"])
        for job_id, state, sentences in blocks
    )


def _worker(number: int, model: str) -> WorkerView:
    return WorkerView(
        name=WorkerName(f"dit-{number}@gpu-a"),
        incarnation=Incarnation(number + 1),
        phase=Phase.DIT,
        host="gpu-a",
        node="gpu-a",
        models=frozenset({model}),
        draining=False,
        lease_expired=False,
    )


def _job(number: int, model: str, state: JobState, **more: object) -> JobView:
    given: dict[str, object] = {
        "job_id": JobId(f"b0123456789-{number:06d}"),
        "batch_id": "b0123456789",
        "state": state,
        "priority": 0,
        "seq": number,
        "model": model,
        "shape": SHAPE,
        "steps": 30,
        "step": 0,
        "attempt": 0,
        "dop": 0,
        "message": Whereabouts.NONE,
        "group": (),
        "holder": None,
        "worker_losses": 0,
        "cancel_requested": False,
        "arrived_s": 0.0,
    }
    return JobView(**{**given, **more})  # type: ignore[arg-type]  # a job's own fields


def _running(number: int, model: str, group: tuple[WorkerView, ...], *, step: int) -> JobView:
    return _job(
        number,
        model,
        JobState.DENOISING,
        step=step,
        dop=len(group),
        group=tuple(worker.name for worker in group),
        holder=group[0].incarnation,
        attempt=1,
    )


PARTS = {"explain example": example}
