"""What ``paper.py`` simulates: policies, set-ups, and everything that was tried beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from ddit_batch.cost_model import CostModel
from ddit_batch.policy import POLICIES, make_policy
from ddit_batch.profile import find_profile, make_cost_model
from ddit_batch.simulator import Cluster, simulate
from ddit_batch.simulator.generator import generate
from ddit_batch.simulator.report import summarise, warm_up_jobs

MODEL, STEPS = "opensora-1.2", 30
SEEDS = (1, 2, 3)
JOBS = 2000
WARM_UP = 0.1

STATIC = {f"static, dop {k}": f"static:dop={k}" for k in (1, 2, 4)}
ISOLATED = {
    "SPCI, 2/2/4 at dop 1/2/4": "partitioned:sizes=2/2/4,dops=1/2/4",
    "DPCI, sizes from B": "partitioned:sizes=optimal",
}
DP, DP_FIXED = {"DP, any idle workers": "dp"}, {"DP, fixed groups": "dp:groups=fixed"}
BASELINES = {**STATIC, **ISOLATED, **DP, **DP_FIXED}
DDIT = {
    "ddit, hungry first": "ddit:order=hungry-first",
    "ddit, waiting first": "ddit:order=waiting-first",
}
OURS = {"elastic": "elastic"} if "elastic" in POLICIES else {}
FAST = {**STATIC, **DP}
"""The baselines of the sweeps: no other is the best in any column of the first table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is simulated: a workload, and on what."""

    spec: str
    gpus: int = 8
    decode_s: float | None = None
    """Of every shape; None: as the profile says, by pixels."""
    warm_up: float = WARM_UP
    seeds: tuple[int, ...] = SEEDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of one policy in one set-up: the means over the seeds of mean and 99th percentile."""

    mean_s: float
    p99_s: float


Metric = Callable[[Latency], float]


def mean_of(latency: Latency) -> float:
    """The mean latency."""
    return latency.mean_s


def p99_of(latency: Latency) -> float:
    """The 99th percentile."""
    return latency.p99_s


@cache
def costs(decode_s: float | None) -> CostModel:
    """The shipped profile of the paper's set-up, held fixed."""
    plain = make_cost_model([find_profile("ddit-opensora-h800")], is_fixed=True)
    if decode_s is None:
        return plain
    shapes = plain.shapes(MODEL)
    changed = {(MODEL, s): replace(plain.cost(MODEL, s), decode_s=decode_s) for s in shapes}
    return replace(plain, table=changed)


@cache
def measured(setup: Setup, policy: str) -> Latency:
    """Run one policy in one set-up, once for each seed."""
    model, cluster = costs(setup.decode_s), Cluster(gpus=setup.gpus)
    means, p99s = [], []
    for seed in setup.seeds:
        workload = generate(
            setup.spec, costs=model, model=MODEL, steps=STEPS, gpus=setup.gpus, dice=Random(seed)
        )
        result = simulate(workload, model, make_policy(policy, model), cluster)
        first = warm_up_jobs(len(result.jobs), setup.warm_up)
        summary = summarise(result, model, cluster, first=first)
        means.append(summary.mean_latency_s)
        p99s.append(summary.p99_latency_s)
    return Latency(mean_s=sum(means) / len(means), p99_s=sum(p99s) / len(p99s))


def best(setup: Setup, policies: Mapping[str, str], metric: Metric) -> tuple[str, float]:
    """The policy with the least *metric*, and that."""
    found = {name: metric(measured(setup, spec)) for name, spec in policies.items()}
    name = min(found, key=lambda name: found[name])
    return name, found[name]


def gain(setup: Setup, over: Mapping[str, str], metric: Metric, spec: str) -> float:
    """How many times better *spec* is than the best of some others."""
    return best(setup, over, metric)[1] / metric(measured(setup, spec))


PAPER_SETUPS = {
    "0.25 a second": Setup(spec=f"poisson:rate=0.25,jobs={JOBS}"),
    "0.5 a second": Setup(spec=f"poisson:rate=0.5,jobs={JOBS}"),
    "bursts of 8, 0.25 a second": Setup(spec=f"bursts:rate=0.25,size=8,jobs={JOBS}"),
}


RATES = tuple(n / 20 for n in range(2, 15))


def poisson(rate: float, **changes: object) -> Setup:
    """Arrivals one by one."""
    return replace(Setup(spec=f"poisson:rate={rate:g},jobs={JOBS}"), **changes)  # type: ignore[arg-type]  # fields of Setup


@dataclass(frozen=True, slots=True)
class Tried:
    """One set-up of a sweep, with the gains of both orders in both metrics."""

    label: str
    setup: Setup
    over: Mapping[str, str]

    def row(self) -> list[str]:
        """The best baseline in each metric, and the gains over it."""
        cells = [self.label]
        for metric in (mean_of, p99_of):
            name, seconds = best(self.setup, self.over, metric)
            gains = [gain(self.setup, self.over, metric, spec) for spec in DDIT.values()]
            cells += [f"{name}: {seconds:.2f}", *(f"{times:.2f}" for times in gains)]
        return cells


def best_point(tried: Sequence[Tried], metric: Metric) -> tuple[float, str]:
    """The largest gain of either order over the best baseline, and where it is."""
    return max(
        (gain(one.setup, one.over, metric, spec), f"{name} at {one.label}")
        for one in tried
        for name, spec in DDIT.items()
    )


def least_at_b_s() -> float:
    """Mean latency over the shapes if every job had B workers at once."""
    model = costs(None)
    found = [model.cost(MODEL, shape) for shape in model.shapes(MODEL)]
    each = [c.encode_s + c.dit_s(c.optimal_dop, STEPS) + c.decode_s for c in found]
    return sum(each) / len(each)


def few(jobs: int, rate: float) -> Setup:
    """A run of few requests, of which all are counted, many times."""
    spec = f"poisson:rate={rate:g},jobs={jobs}"
    return Setup(spec=spec, warm_up=0.0, seeds=tuple(range(1, 21)))


def readings() -> Iterator[tuple[str, list[Tried]]]:
    """Everything else that was tried, by what was changed."""
    yield (
        "Bursts of 2 to 32 jobs at 0.25 and 0.5 a second",
        [
            Tried(
                f"{size} at {rate:g}",
                Setup(spec=f"bursts:rate={rate:g},size={size},jobs={JOBS}"),
                FAST,
            )
            for rate in (0.25, 0.5)
            for size in (2, 4, 8, 16, 32)
        ],
    )
    yield (
        "One burst alone, on empty GPUs (20 seeds)",
        [
            Tried(
                f"{jobs} jobs",
                Setup(spec=f"at-once:jobs={jobs}", warm_up=0.0, seeds=tuple(range(1, 21))),
                FAST,
            )
            for jobs in (4, 8, 12, 16, 24, 32, 64)
        ],
    )
    yield (
        "Few requests, all of them counted (20 seeds)",
        [
            Tried(f"{jobs} at {rate:g}", few(jobs, rate), FAST)
            for jobs in (30, 50, 100)
            for rate in (0.25, 0.5, 0.75)
        ],
    )
    yield (
        "Other mixes of 144p/240p/360p, by load",
        [
            Tried(f"{'/'.join(map(str, mix))} at load {load:g}", mixed(mix, load), FAST)
            for mix in ((1, 1, 2), (6, 1, 1), (1, 0, 1), (0, 0, 1))
            for load in (0.55, 0.7, 0.85)
        ],
    )
    yield (
        "64 GPUs in 8 servers, by load",
        [Tried(f"{load:g}", wide(load), FAST) for load in WIDE_LOADS],
    )
    yield (
        "Decoding takes 0.87 s for every shape",
        [Tried(f"{rate:g}", poisson(rate, decode_s=0.87), FAST) for rate in (0.25, 0.4, 0.5, 0.6)],
    )
    yield (
        "DP read as fixed groups: over static and that",
        [
            Tried(f"{rate:g}", poisson(rate), {**STATIC, **DP_FIXED})
            for rate in (0.25, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7)
        ],
    )
    yield (
        "DP read as fixed groups, and 64 GPUs in 8 servers, by load",
        [Tried(f"{load:g}", wide(load), {**STATIC, **DP_FIXED}) for load in WIDE_LOADS],
    )


WIDE_LOADS = (0.5, 0.7, 0.85, 0.95)


def wide(load: float) -> Setup:
    """The paper's larger cluster."""
    return Setup(spec=f"poisson:load={load:g},jobs={JOBS}", gpus=64)


def mixed(mix: tuple[int, ...], load: float) -> Setup:
    """Shapes by weight, the smallest first."""
    shapes = [f"{s}*{weight}" for s, weight in zip(SIZES, mix, strict=True) if weight]
    return Setup(spec=f"poisson:load={load:g},jobs={JOBS},shapes={'/'.join(shapes)}")


SIZES = ("256x144x51", "426x240x51", "640x360x51")
