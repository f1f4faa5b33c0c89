from __future__ import annotations

import json

import pytest
from sim_worlds import COSTS, a_workload, always, an_arrival

from ddit_batch.simulator import Cluster, Result, simulate
from ddit_batch.simulator.bound import bound
from ddit_batch.simulator.chrome_trace import chrome_trace
from ddit_batch.simulator.report import Report, percentile, summarise, warm_up_jobs
from ddit_batch.simulator.sizing import fewest_gpus

CLUSTER = Cluster(gpus=2)


def result_of(dop: int, *, batches: bool = False) -> Result:
    """Two jobs at once, each of 40 + 3 s alone or 24 + 3 s on both workers."""
    jobs = [an_arrival(n, batch_id=f"b{n}" if batches else "b") for n in (1, 2)]
    return simulate(a_workload(*jobs), COSTS, always(dop), CLUSTER)


def test_summary_of_two_jobs_side_by_side() -> None:
    """All by hand; a step alone is four seconds slower than at their optimal dop, two."""
    found = summarise(result_of(1), COSTS, CLUSTER)

    assert (found.mean_latency_s, found.p99_latency_s, found.makespan_s) == (43.0, 43.0, 43.0)
    assert (found.utilisation, found.gpu_s, found.resizes) == (1.0, 86.0, 0)
    assert found.starvation_s == 16.0
    assert found.jain == 1.0


def test_summary_of_two_jobs_one_after_the_other() -> None:
    """The second waits until both workers are free, which is after the decode of the first."""
    found = summarise(result_of(2), COSTS, CLUSTER)

    assert found.mean_latency_s == (27.0 + 27.0 + 27.0) / 2
    assert (found.p50_latency_s, found.max_latency_s) == (40.5, 54.0)
    assert found.starvation_s == 0.0


def test_batches_that_are_served_unevenly_have_a_lower_index() -> None:
    """Speeds of 27/27 and 27/54 of the best: (3/2)^2 / (2 * 5/4)."""
    found = summarise(result_of(2, batches=True), COSTS, CLUSTER)

    assert found.jain == pytest.approx(0.9)


def test_ratio_says_how_many_times_better() -> None:
    """Only of what should be small."""
    ratios = summarise(result_of(2), COSTS, CLUSTER).ratios(summarise(result_of(1), COSTS, CLUSTER))

    assert ratios["mean_latency_s"] == pytest.approx(43.0 / 40.5)
    assert ratios["makespan_s"] == pytest.approx(43.0 / 54.0)
    assert "utilisation" not in ratios


def test_report_is_json() -> None:
    """With the bound beside the policies."""
    workload = a_workload(an_arrival(1), an_arrival(2))
    report = Report(
        jobs=2,
        counted=2,
        summaries=(summarise(result_of(1), COSTS, CLUSTER),),
        bound=bound(workload, COSTS, CLUSTER),
    )

    written = json.loads(json.dumps(report.to_json()))

    assert written["policies"][0]["policy"] == "scripted"
    assert written["policies"][0]["better_than_first"]["mean_latency_s"] == 1.0
    assert 0 < written["bound"]["mean_latency_s"] <= 40.5


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 2.5), (100, 4.0), (90, 3.7)])
def test_percentiles_lie_between_neighbours(percent: float, value: float) -> None:
    """As numpy's and Excel's do."""
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == pytest.approx(value)


def test_warm_up_leaves_a_job() -> None:
    """A share of the arrivals, rounded down."""
    assert [warm_up_jobs(jobs, 0.1) for jobs in (1, 9, 10, 2000)] == [0, 0, 1, 200]
    assert warm_up_jobs(3, 0.99) == 2


def test_chrome_trace_has_a_lane_for_every_worker() -> None:
    """Both workers of a group show its segment; a second result has lanes of its own."""
    workers = tuple((w.name, w.node) for w in CLUSTER.workers(frozenset()))

    trace = chrome_trace([result_of(2), result_of(1)], workers)

    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    steps = [event for event in spans if event["cat"] == "dit" and event["pid"] == 0]
    assert [(e["tid"], e["ts"], e["dur"]) for e in steps[:2]] == [(0, 0, 24e6), (1, 0, 24e6)]
    assert steps[0]["name"] == "b-000001 dop 2"
    assert {event["pid"] for event in spans} == {0, 1}
    names = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"]
    assert names == [name for name, _ in workers] * 2


@pytest.mark.parametrize("at_least", [1, 2, 5, 13])
def test_fewest_gpus_are_found(at_least: int) -> None:
    """Of 100 GPU-seconds in 8 seconds; no number is asked twice."""
    asked: list[int] = []

    def makespan_s(gpus: int) -> float:
        asked.append(gpus)
        return 100.0 / gpus

    assert fewest_gpus(makespan_s, by_s=8.0, at_least=at_least, at_most=50) == 13
    assert len(asked) == len(set(asked))


def test_no_number_of_gpus_may_be_enough() -> None:
    """The last that may be tried is tried."""
    assert fewest_gpus(lambda gpus: 100.0 / gpus, by_s=8.0, at_least=1, at_most=12) is None
    assert fewest_gpus(lambda gpus: 100.0 / gpus, by_s=8.0, at_least=13, at_most=13) == 13
