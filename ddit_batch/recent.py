"""How busy it has been of late: numbers that a policy may weigh its choices by.

Pure, and one formula for both drivers: the live one asks Postgres for what came in and what ended,
a simulated one remembers it. Everything is in GPU-seconds at dop 1, so that a policy's own choices
do not change what it is told of the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddit_batch.snapshot import Recent

LOAD_SPAN = 6.0
"""Arrivals are counted over so many mean jobs' work: at load 0.8 that is five arrivals a worker."""
LATENCY_SPAN = 72.0
"""Ends are looked at over so many for one worker, and arrivals for the usual load: steadier, slower
to notice. The more workers the shorter, by the cube root of their number, because more jobs end in
it: with 8 workers it is 36 mean jobs' work, or 270 jobs at load 0.95; with 32 it is 23, or 690."""
LEAST_LATENCY_SPAN = 2.0 * LOAD_SPAN
SLOW_QUANTILE = 0.95
FEWEST_ENDS = 20
"""With fewer jobs that ended, nothing is known of what is slow."""
PRIOR_LOAD = 0.7
PRIOR_WEIGHT = 0.2
"""Of a span: how much of it at ``PRIOR_LOAD`` is assumed to have come before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """How far back to look, in seconds."""

    load_s: float
    latency_s: float
    """Also for the usual load."""


def spans(mean_work_s: float, workers: int) -> Spans:
    """The spans for jobs that need *mean_work_s* GPU-seconds each, at dop 1, and *workers*."""
    latency_span = max(LATENCY_SPAN / max(workers, 1) ** (1.0 / 3.0), LEAST_LATENCY_SPAN)
    return Spans(load_s=LOAD_SPAN * mean_work_s, latency_s=latency_span * mean_work_s)


def recent(
    *,
    span: Spans,
    workers: int,
    arrived_s: float,
    backlog_s: float,
    arrived_long_s: float,
    slow_s: float | None = None,
) -> Recent:
    """The numbers, from GPU-seconds of work at dop 1.

    Args:
        span: How far back was looked.
        workers: That denoise.
        arrived_s: Work that came in during the load span, done meanwhile or not.
        backlog_s: What is left of older jobs: a backlog is a load too.
        arrived_long_s: Work that came in during the latency span. A batch that came before it is
            not usual, however much is left of it.
        slow_s: See ``slow_s``.
    """
    return Recent(
        load=_load(arrived_s + backlog_s, workers, span.load_s),
        usual_load=_load(arrived_long_s, workers, span.latency_s),
        slow_s=slow_s,
    )


def _load(work_s: float, workers: int, span_s: float) -> float:
    if span_s <= 0:
        return PRIOR_LOAD
    offered = work_s / (max(workers, 1) * span_s)
    return (offered + PRIOR_WEIGHT * PRIOR_LOAD) / (1.0 + PRIOR_WEIGHT)


def slow_s(ascending_s: Sequence[float]) -> float | None:
    """The latency that 19 of 20 of *ascending_s*, which are in order, do not exceed."""
    if len(ascending_s) < FEWEST_ENDS:
        return None
    return ascending_s[int(SLOW_QUANTILE * (len(ascending_s) - 1))]
