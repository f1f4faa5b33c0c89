"""How busy it has been of late: two numbers that a policy may weigh its choices by.

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
LATENCY_SPAN = 24.0
"""Ends are looked at over so many: a quantile wants more samples than a rate."""
SLOW_QUANTILE = 0.95
FEWEST_ENDS = 20
"""With fewer jobs that ended, nothing is known of what is slow."""
PRIOR_LOAD = 0.7
PRIOR_WEIGHT = 0.2
"""Of a span in which nothing is known yet: how many spans of ``PRIOR_LOAD`` are assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """How far back to look, in seconds."""

    load_s: float
    latency_s: float


def spans(mean_work_s: float) -> Spans:
    """The spans for jobs that need *mean_work_s* GPU-seconds each, at dop 1."""
    return Spans(load_s=LOAD_SPAN * mean_work_s, latency_s=LATENCY_SPAN * mean_work_s)


def recent(*, work_s: float, workers: int, span_s: float, slow_s: float | None = None) -> Recent:
    """The two numbers.

    *work_s* is what came in during *span_s*, done meanwhile or not, and what is left of older jobs:
    a backlog is a load too.
    """
    offered = work_s / (max(workers, 1) * span_s) if span_s > 0 else PRIOR_LOAD
    load = (offered + PRIOR_WEIGHT * PRIOR_LOAD) / (1.0 + PRIOR_WEIGHT)
    return Recent(load=load, slow_s=slow_s)


def slow_s(ascending_s: Sequence[float]) -> float | None:
    """The latency that 19 of 20 of *ascending_s*, which are in order, do not exceed."""
    if len(ascending_s) < FEWEST_ENDS:
        return None
    return ascending_s[int(SLOW_QUANTILE * (len(ascending_s) - 1))]
