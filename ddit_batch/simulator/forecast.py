"""When the jobs of a live cluster will be done: its snapshot, run on by the simulator.

Pure. What is simplified: whoever decodes now, DiT workers do it here, so that a cluster with VAE
workers of its own is a little faster than its forecast; encoding takes its time and waits for
nobody; a step or a decode that runs has just begun; no worker is lost, nothing more submitted. Jobs
outside the snapshot's window are not known, and wait behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import Policy, dit_workers
from ddit_batch.simulator.engine import Engine
from ddit_batch.simulator.record import Record
from ddit_batch.simulator.workload import Arrival
from ddit_batch.simulator.world import Config
from ddit_batch.snapshot import JobView, Snapshot

_UNENCODED = frozenset({JobState.QUEUED, JobState.ENCODING})


def forecast(
    snapshot: Snapshot, costs: CostModel, policy: Policy, config: Config | None = None
) -> Mapping[JobId, float]:
    """When each job of *snapshot* will be done, on the clock of its ``now_s``.

    Jobs to be cancelled and jobs of models that no DiT worker serves are left out.

    Raises:
        ConfigError: The policy leaves jobs waiting although nothing runs.
    """
    crew = tuple(replace(worker, decodes=True) for worker in dit_workers(snapshot))
    served = frozenset().union(*(worker.models for worker in crew))
    engine = Engine(
        policy=policy, workers=crew, config=config or Config(), batches=snapshot.batches
    )
    names = frozenset(worker.name for worker in crew)
    for job in sorted(snapshot.jobs, key=lambda job: job.seq):
        if job.model in served and not job.cancel_requested:
            _adopt(engine, job, snapshot.now_s, costs, names)
    engine.decide(snapshot.now_s)
    engine.run()
    return {job.arrival.job_id: job.finished_s for job in engine.result().jobs}


def _adopt(
    engine: Engine, job: JobView, now_s: float, costs: CostModel, crew: frozenset[WorkerName]
) -> None:
    """Have *job* go on in *engine* from where it is."""
    record = Record(_arrival(job), job.seq, costs.cost(job.model, job.shape))
    record.step = record.checkpoint_step = job.step
    group = tuple(name for name in job.group if name in crew)
    pending = job.pending and tuple(name for name in job.pending if name in crew)
    match job.state:
        case JobState.DENOISING if group == job.group:
            engine.let_continue(record, now_s, replace(job, pending=pending))
        case JobState.DECODING if group and group == job.group:
            engine.let_continue(record, now_s, job)
        case JobState.DENOISED | JobState.DECODING:
            waiting = replace(job, state=JobState.DENOISED, group=(), holder=None)
            engine.let_continue(record, now_s, waiting)
        case _:
            record.last_group = group or job.last_group
            encode_s = record.cost.encode_s if job.state in _UNENCODED else 0.0
            engine.let_arrive(record, now_s + encode_s)


def _arrival(job: JobView) -> Arrival:
    return Arrival(
        job_id=job.job_id,
        batch_id=job.batch_id,
        arrived_s=job.arrived_s,
        model=job.model,
        shape=job.shape,
        steps=job.steps,
        priority=job.priority,
    )
