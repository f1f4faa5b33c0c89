"""What a simulation is given besides its workload: the workers, what changes cost, what breaks."""

from __future__ import annotations

from dataclasses import dataclass

from ddit_batch.errors import ConfigError
from ddit_batch.job import Incarnation, Phase, WorkerName
from ddit_batch.scheduler.core import Limits
from ddit_batch.snapshot import WorkerView

UNBOUND = Limits(look_ahead=10**9, decode_backlog=10**9, max_worker_losses=10**9)
"""Limits that never bind: what the live scheduler's queues cost is not part of the model."""


FIRST_GROUP_S = 1.0
"""How long a job's first step waits for its group: the constant of that name in workers/crew.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The workers: one for each GPU, all alike, each serving every model and denoising.

    Encode workers are not modelled: encoding takes its time and nobody waits for it.
    """

    gpus: int
    gpus_per_node: int = 8
    """No group goes across nodes; the last node may be smaller."""
    vae_workers: int = 0
    """Workers beside the GPUs that decode, first come first served; 0: the GPUs' own do."""

    def __post_init__(self) -> None:
        for name, value in (("GPUs", self.gpus), ("GPUs a node", self.gpus_per_node)):
            if value < 1:
                raise ConfigError(f"{value} {name}: a cluster needs at least 1")

    @property
    def widest(self) -> int:
        """The most workers that a group can have."""
        return min(self.gpus, self.gpus_per_node)

    def workers(self, models: frozenset[str]) -> tuple[WorkerView, ...]:
        """The first incarnation of every worker, in order of name."""
        digits = len(str(self.gpus - 1))
        return tuple(
            WorkerView(
                name=WorkerName(f"dit-{number:0{digits}}@{node}"),
                incarnation=Incarnation(number + 1),
                phase=Phase.DIT,
                host=node,
                node=node,
                models=models,
                draining=False,
                lease_expired=False,
                decodes=self.vae_workers == 0,
            )
            for number in range(self.gpus)
            for node in (f"node-{number // self.gpus_per_node:0{digits}}",)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the changes of a group cost, and how much a decision sees. Durations in seconds."""

    start_s: float = 0.0
    """From a job's being sent to workers until its first step begins there."""
    resize_s: float = 0.0
    """A group that changes at a step boundary stands still for so long, its new workers too."""
    form_s: float = 0.0
    """From a decision until several workers have formed the group that it says. Meanwhile a running
    job goes on with the group that it has. One that has just been sent waits for its first group,
    but no longer than ``FIRST_GROUP_S``: then its leader begins alone."""
    checkpoint_every_steps: int = 5
    """A job that loses its leader goes on from the last multiple."""
    window: int = 2048
    """Waiting jobs that a decision sees: the first in order of priority and arrival ..."""
    window_shortest: int = 0
    """... and of the others this many with the least GPU-seconds left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A worker is lost, at once and noticed at once, and perhaps comes back."""

    worker: int
    """Which, counted from 0 in order of name."""
    lost_s: float
    back_s: float | None = None
    """When its next incarnation is there; None: never."""
