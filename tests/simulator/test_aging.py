"""The bound that ``elastic`` states on any job's wait, kept in simulated overload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from random_workloads import SHAPES
from sim_worlds import TableCosts, a_cost, a_workload, an_arrival

from ddit_batch.job import JobId, JobState
from ddit_batch.policy.base import Decisions, dit_workers
from ddit_batch.policy.elastic import Elastic
from ddit_batch.policy.elastic_tuning import Tuning
from ddit_batch.simulator import Cluster, Config, Fault, simulate
from ddit_batch.simulator.workload import Workload
from ddit_batch.snapshot import JobView, Snapshot

CONFIG = Config(start_s=0.2, resize_s=0.3, checkpoint_every_steps=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """``elastic``, and how long each job has waited that had nobody to wait for any more."""

    policy: Elastic
    since_s: dict[JobId, float] = field(default_factory=dict)
    """The first decision that found it overdue and behind fewer such jobs than there are workers,
    as every one has since."""
    waits_s: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The policy's."""
        return self.policy.name

    def sequence(self, snapshot: Snapshot, jobs: Sequence[JobView]) -> list[JobView]:
        """The policy's."""
        return self.policy.sequence(snapshot, jobs)

    def plan(self, snapshot: Snapshot) -> Decisions:
        """The policy's; who waits is noted."""
        overdue = sorted(
            (job for job in snapshot.jobs if self._is_overdue(job, snapshot.now_s)),
            key=lambda job: job.arrived_s,
        )
        due = {
            job.job_id
            for job in overdue[: len(dit_workers(snapshot))]
            if job.state is JobState.ENCODED and not job.group
        }
        for job_id in self.since_s.keys() - due:
            del self.since_s[job_id]
        for job_id in due:
            self.waits_s.append(snapshot.now_s - self.since_s.setdefault(job_id, snapshot.now_s))
        return self.policy.plan(snapshot)

    def _is_overdue(self, job: JobView, now_s: float) -> bool:
        cost = self.policy.costs.cost(job.model, job.shape)
        whole_s = job.steps * cost.at(1) + cost.decode_s
        return now_s - job.arrived_s > self.policy.tuning.patience * whole_s


def a_table(dice: Random) -> TableCosts:
    """Steps that get faster with workers, or do not."""
    table = {}
    for shape in SHAPES:
        step_s = [dice.uniform(0.5, 10.0)]
        step_s += [step_s[0] * dice.uniform(0.3, 1.1) for _ in range(dice.randint(0, 2))]
        table[shape] = a_cost(*step_s, decode_s=dice.uniform(0.1, 10.0))
    return TableCosts(table=table)


def a_rush(dice: Random, jobs: int) -> Workload:
    """*jobs* jobs of up to eight steps within a minute, one after the other."""
    times = sorted(dice.uniform(0.0, 60.0) for _ in range(jobs))
    return a_workload(
        *(
            an_arrival(
                number,
                at_s,
                batch_id=f"b{dice.randrange(3)}",
                shape=dice.choice(SHAPES),
                steps=dice.randint(1, 8),
                priority=dice.choice([0, 0, 0, 1]),
            )
            for number, at_s in enumerate(times, start=1)
        )
    )


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 1))
def test_overdue_job_waits_for_a_boundary_and_a_decode_at_most(
    seed: int, jobs: int, losses: int
) -> None:
    """Once fewer overdue jobs that came before it are there than workers.

    Then a worker is told to let go at its next step boundary. Two things may come between: its job
    ends there, so that it decodes first; or it is one of several, of which the last lets go last.
    """
    dice = Random(seed)
    costs, rush = a_table(dice), a_rush(dice, jobs)
    gpus = dice.randint(2, 8)
    fault = Fault(worker=0, lost_s=dice.uniform(0, 99), back_s=dice.uniform(99, 200))
    policy = Elastic(costs=costs, tuning=Tuning(patience=dice.choice([0.1, 1.0, 3.0])))
    watched = Watched(policy=policy)

    simulate(
        rush,
        costs,
        watched,
        Cluster(gpus=gpus, gpus_per_node=dice.randint(1, 4)),
        CONFIG,
        faults=(fault,) * losses,
    )

    step_s = max(max(cost.step_s) for cost in costs.table.values()) + CONFIG.resize_s
    decode_s = max(cost.decode_s for cost in costs.table.values())
    assert max(watched.waits_s, default=0.0) <= 2 * step_s + decode_s
