"""Random workloads, costs, clusters and policies: strategies for hypothesis."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st
from sim_worlds import MODEL, TableCosts, a_cost, an_arrival

from ddit_batch.job import JobId, Shape
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.simulator import Cluster, Config, Fault, Workload
from ddit_batch.snapshot import BatchView

SHAPES = tuple(Shape(16 * n, 16, 9) for n in range(1, 4))
POLICIES = (
    "static:dop=1",
    "static:dop=2",
    "ddit",
    "ddit:order=waiting-first",
    "ddit:decode=group",
    "ddit:promotion=off",
    "dp",
    "dp:groups=fixed",
    "partitioned",
    "elastic",
)
"""Those that end every workload on every cluster."""

URGENT = BatchView(batch_id="b1", share=2.0, deadline_s=50.0)

seconds = st.floats(0.01, 30.0, allow_nan=False)


@st.composite
def costs(draw: st.DrawFn) -> TableCosts:
    """Steps that get faster with workers, or do not, for each of three shapes."""
    table = {}
    dops = draw(st.sampled_from([(1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 3, 6), (1, 3)]))
    for shape in SHAPES:
        step_s = [draw(seconds)]
        for _ in range(draw(st.integers(0, len(dops) - 1))):
            step_s.append(step_s[-1] * draw(st.floats(0.4, 1.2)))
        decode_s, encode_s = draw(seconds), draw(st.sampled_from([0.0, 0.7]))
        optimal = draw(st.sampled_from(dops[: len(step_s)]))
        seconds_of = {"decode_s": decode_s, "encode_s": encode_s}
        table[shape] = a_cost(*step_s, **seconds_of, optimal=optimal, dops=dops)
    return TableCosts(table=table)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """A few jobs in a few batches, often several at an instant."""
    count = draw(st.integers(1, 10))
    times = sorted(draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 5.0, 40.0]), min_size=count)))
    arrivals = tuple(
        an_arrival(
            number,
            at_s,
            job_id=JobId(f"b{number % 2}-{number:06d}"),
            batch_id=f"b{number % 2}",
            model=MODEL,
            shape=draw(st.sampled_from(SHAPES)),
            steps=draw(st.integers(1, 6)),
            priority=draw(st.sampled_from([0, 0, 1])),
        )
        for number, at_s in enumerate(times, start=1)
    )
    batches = draw(st.sampled_from([(), (URGENT,), (BatchView(batch_id="b0", share=0.5), URGENT)]))
    return Workload(arrivals=arrivals, batches=batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that ``simulate`` is given."""

    workload: Workload
    costs: TableCosts
    policy: Policy
    cluster: Cluster
    config: Config
    faults: tuple[Fault, ...] = ()


@st.composite
def worlds(draw: st.DrawFn, *, with_faults: bool = False) -> World:
    """A world in which every job can be done, if some workers come back."""
    table = draw(costs())
    gpus = draw(st.integers(2, 12))
    cluster = Cluster(
        gpus=gpus,
        gpus_per_node=draw(st.sampled_from([2, 4, 8])),
        vae_workers=draw(st.sampled_from([0, 0, 1, 2])),
    )
    lost = draw(st.lists(st.integers(0, gpus - 1), unique=True)) if with_faults else []
    times = st.floats(0.0, 100.0)
    faults = []
    for worker in lost:
        at_s = draw(times)
        faults.append(Fault(worker=worker, lost_s=at_s, back_s=at_s + draw(times)))
    return World(
        workload=draw(workloads()),
        costs=table,
        policy=make_policy(draw(st.sampled_from(POLICIES)), table),  # type: ignore[arg-type]
        cluster=cluster,
        config=Config(
            start_s=draw(st.sampled_from([0.0, 0.3])),
            resize_s=draw(st.sampled_from([0.0, 0.2])),
            form_s=draw(st.sampled_from([0.0, 0.1, 7.0])),
            checkpoint_every_steps=draw(st.integers(1, 3)),
        ),
        faults=tuple(faults),
    )
