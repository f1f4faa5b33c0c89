"""Pictures of simulations: who waits how long, which GPU does what. Needs the extra ``plot``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase, WorkerName
from ddit_batch.simulator import Cluster, Result

_LABELLED_SEGMENTS = 120
"""With more segments than these their names would not be read."""
_LANES_IN = 3.0
_LANE_IN = 0.12
_CURVES_IN = 4.0
_WIDTH_IN = 12.0
_DECODE_COLOUR = "0.75"


def check_plotting() -> None:
    """Check that pictures can be drawn, before anything long is begun.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--plot needs matplotlib, which is not installed: pip install 'ddit-batch[plot]'"
        )


def plot(file: Path, results: Sequence[Result], cluster: Cluster, *, first: int = 0) -> None:
    """Draw latency curves of all *results*, and for each a lane for every worker, into *file*.

    Args:
        file: Its extension says the format.
        results: Of one workload.
        cluster: On which they ran.
        first: Jobs before this one in order of arrival are not in the curves.

    Raises:
        ConfigError: matplotlib is not installed, or does not know the format.
    """
    check_plotting()
    from matplotlib.figure import Figure  # noqa: PLC0415 -- an extra, and slow

    lanes_in = max(_LANES_IN, _LANE_IN * cluster.gpus)
    heights = [_CURVES_IN, *(lanes_in for _ in results)]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights)), layout="constrained")
    curves, *lanes = figure.subplots(len(heights), 1, height_ratios=heights)
    _draw_curves(curves, results, first)
    longest_s = max(result.begun_s + result.makespan_s for result in results)
    for axes, result in zip(lanes, results, strict=True):
        _draw_lanes(axes, result, cluster)
        axes.set_xlim(results[0].begun_s, longest_s)
    try:
        figure.savefig(file, dpi=120)
    except ValueError as exc:
        raise ConfigError(f"--plot {file}: {exc}") from exc


def _draw_curves(axes: Any, results: Sequence[Result], first: int) -> None:
    """The share of jobs that took no longer than so many seconds."""
    for result in results:
        latencies = sorted(job.latency_s for job in result.jobs[first:])
        shares = [number / len(latencies) for number in range(1, len(latencies) + 1)]
        axes.step(latencies, shares, where="post", label=result.policy)
    axes.set(xlabel="latency (s)", ylabel="share of jobs", ylim=(0, 1), title="latency")
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")


def _draw_lanes(axes: Any, result: Result, cluster: Cluster) -> None:
    """A lane for each worker, the first at the top; colours are dops, grey is a decode."""
    row: dict[WorkerName, int] = {
        worker.name: at for at, worker in enumerate(cluster.workers(frozenset()))
    }
    bars: dict[str, dict[int, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for segment in result.segments:
        what = f"dop {segment.dop}" if segment.phase is Phase.DIT else "decode"
        for name in segment.workers:
            bars[what][row[name]].append((segment.begun_s, segment.ended_s - segment.begun_s))
    for what in sorted(bars, key=_dop_of):
        colour = _DECODE_COLOUR if what == "decode" else f"C{_dop_of(what) % 10}"
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.3}
        for lane, spans in bars[what].items():
            axes.broken_barh(spans, (lane - 0.5, 1.0), **look)
        axes.broken_barh([], (0, 0), label=what, **look)
    if len(result.segments) <= _LABELLED_SEGMENTS:
        for segment in result.segments:
            middle_s = (segment.begun_s + segment.ended_s) / 2
            label = segment.job_id.rpartition("-")[2].lstrip("0")
            for name in segment.workers if segment.phase is Phase.DIT else ():
                axes.text(middle_s, row[name], label, ha="center", va="center", fontsize=6)
    axes.set(xlabel="seconds", ylabel="GPU", title=result.policy, ylim=(cluster.gpus - 0.5, -0.5))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _dop_of(what: str) -> int:
    return int(what.removeprefix("dop ")) if what != "decode" else 0
