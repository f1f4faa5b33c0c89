"""Tiny worlds for the tests of the simulator: round costs, jobs, and scripted policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddit_batch.cost_model import Basis, Cost
from ddit_batch.job import JobId, JobState, Shape, WorkerName
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.simulator import Arrival, Workload
from ddit_batch.snapshot import JobView, Snapshot, order_key

MODEL = "model"
SMALL, LARGE = Shape(64, 64, 9), Shape(128, 128, 9)


def a_cost(
    *step_s: float,
    decode_s: float = 3.0,
    encode_s: float = 0.0,
    optimal: int = 1,
    dops: tuple[int, ...] = (1, 2, 4, 8),
) -> Cost:
    """Steps of *step_s* seconds at the first of *dops*."""
    dops = dops[: len(step_s)]
    return Cost(
        dops=dops,
        step_s=step_s,
        encode_s=encode_s,
        decode_s=decode_s,
        optimal_dop=optimal,
        fastest_dop=dops[step_s.index(min(step_s))],
        basis=Basis.MEASURED,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCosts:
    """A cost model that is a table; what is not in it costs ``other``."""

    table: Mapping[Shape, Cost] = field(default_factory=dict)
    other: Cost = field(default_factory=lambda: a_cost(10.0, 6.0, 4.0, 2.0, optimal=2))

    def cost(self, model: str, shape: Shape) -> Cost:
        """What a job of *shape* costs."""
        del model
        return self.table.get(shape, self.other)

    def shapes(self, model: str) -> tuple[Shape, ...]:
        """The shapes of the table."""
        del model
        return tuple(self.table)


COSTS = TableCosts()
"""Ten seconds a step alone, six on two workers, four on four, two on eight; three to decode."""


def an_arrival(number: int, at_s: float = 0.0, **changes: object) -> Arrival:
    """Job *number*: four steps."""
    arrival = Arrival(
        job_id=JobId(f"b-{number:06d}"),
        batch_id="b",
        arrived_s=at_s,
        model=MODEL,
        shape=SMALL,
        steps=4,
    )
    return replace(arrival, **changes)


def a_workload(*arrivals: Arrival) -> Workload:
    """A workload of them."""
    return Workload(arrivals=arrivals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """A policy that gives job *n* as many workers as *wish* says, first come first served.

    Groups are prefixes of what a node has idle; a running job keeps its workers and takes further
    ones, or gives some back. Decodes are led by the old leader, alone.
    """

    wish: Callable[[JobView, Snapshot], int]
    name: str = "scripted"

    def plan(self, snapshot: Snapshot) -> Decisions:
        """Keep what runs, resized to its wish, then start what waits."""
        nodes = {worker.name: worker.node for worker in dit_workers(snapshot)}
        jobs = sorted(snapshot.jobs, key=order_key)
        targets: dict[JobId, tuple[WorkerName, ...]] = {}
        idle = [name for name in nodes if not any(name in job.group for job in jobs)]

        def take(count: int, node: str | None) -> list[WorkerName]:
            found = [name for name in idle if node in {None, nodes[name]}]
            given = [name for name in found if nodes[name] == nodes[found[0]]][:count]
            if len(given) < count:
                return []
            for name in given:
                idle.remove(name)
            return given

        for job in jobs:
            if job.group and job.group[0] in nodes:
                live = [name for name in job.group if name in nodes]
                wanted = self.wish(job, snapshot) if job.state is JobState.DENOISING else len(live)
                more = take(max(0, wanted - len(live)), nodes[job.group[0]])
                targets[job.job_id] = tuple([*live, *more][:wanted])
        for job in jobs:
            if job.state is JobState.DENOISED:
                leader = [name for name in job.last_group[:1] if name in idle] or idle[:1]
                targets[job.job_id] = tuple(leader)
                idle[:] = [name for name in idle if name not in leader]
        for job in jobs:
            if job.state is JobState.ENCODED and not job.group:
                targets[job.job_id] = tuple(take(self.wish(job, snapshot), None))
        return targets

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """In order of arrival."""
        del snapshot
        return sorted(jobs, key=order_key)


def always(dop: int) -> Scripted:
    """Every job at *dop*, for good."""
    return Scripted(wish=lambda _job, _snapshot: dop)
