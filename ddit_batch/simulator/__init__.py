"""The simulated driver: the same decision core, with a clock that is a number.

Reading order: ``workload.py`` (what arrives), ``engine.py`` (what happens), ``result.py`` (what is
recorded), ``report.py`` (what is made of it), ``bound.py`` (what nobody can beat).
"""

from __future__ import annotations

from ddit_batch.simulator.engine import simulate
from ddit_batch.simulator.result import JobOutcome, Result, Segment
from ddit_batch.simulator.workload import Arrival, Workload
from ddit_batch.simulator.world import Cluster, Config, Fault

__all__ = [
    "Arrival",
    "Cluster",
    "Config",
    "Fault",
    "JobOutcome",
    "Result",
    "Segment",
    "Workload",
    "simulate",
]
