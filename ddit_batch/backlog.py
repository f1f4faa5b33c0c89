"""What is left to do, by kinds of jobs that cost the same, and what follows from it.

Pure, and small however many jobs wait: 100,000 jobs of one batch are a handful of kinds. Seconds
are GPU-seconds at dop 1 unless a name says otherwise, as in ``recent.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ddit_batch.cost import Basis, Cost, Live
from ddit_batch.cost_model import CostModel
from ddit_batch.job import Shape
from ddit_batch.recent import Spans, recent, slow_s
from ddit_batch.snapshot import Recent


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Jobs of one batch that cost the same, and are equally far."""

    batch_id: str
    model: str
    shape: Shape
    steps: int
    """Denoising steps of each in all."""
    steps_left: int
    """Denoising steps of each still to do; 0: it has only to be decoded."""
    jobs: int
    """How many they are."""
    arrived_s: float
    """When they were submitted, on the clock of snapshots."""
    priority: int = 0
    seq: int = 0
    """Order of arrival of the first of them."""
    waits: bool = True
    """For workers to denoise it, or to be encoded first; no message is out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a job needs of the DiT workers, by the cost model."""

    costs: CostModel
    decodes: bool
    """They decode, too. Otherwise that is the work of others."""

    def whole_s(self, kind: Kind) -> float:
        """Of each job of *kind* from beginning to end."""
        return self._s(kind, kind.steps)

    def left_s(self, kind: Kind) -> float:
        """Of each job of *kind* from now on."""
        return self._s(kind, kind.steps_left)

    def _s(self, kind: Kind, steps: int) -> float:
        cost = self.costs.cost(kind.model, kind.shape)
        return cost.dit_s(1, steps) + (cost.decode_s if self.decodes else 0.0)


def mean_work_s(kinds: Iterable[Kind], work: Work) -> float:
    """Of a job of *kinds* from beginning to end; 0 if there is none."""
    jobs, work_s = 0, 0.0
    for kind in kinds:
        jobs += kind.jobs
        work_s += kind.jobs * work.whole_s(kind)
    return work_s / jobs if jobs else 0.0


def recent_of(
    left: Sequence[Kind],
    ended: Sequence[Kind],
    *,
    work: Work,
    workers: int,
    now_s: float,
    span: Spans,
    latencies_s: Sequence[float],
) -> Recent:
    """How busy it has been of late (``recent.py``).

    *left* are all unfinished jobs; *ended* are those that came and succeeded within the longer
    span.
    """
    backlog_s = arrived_s = arrived_long_s = 0.0
    for kind in (*left, *ended):
        whole_s = kind.jobs * work.whole_s(kind)
        if kind.arrived_s >= now_s - span.latency_s:
            arrived_long_s += whole_s
        if kind.arrived_s >= now_s - span.load_s:
            arrived_s += whole_s
    for kind in left:
        if kind.arrived_s < now_s - span.load_s:
            backlog_s += kind.jobs * work.left_s(kind)
    return recent(
        span=span,
        workers=workers,
        arrived_s=arrived_s,
        backlog_s=backlog_s,
        arrived_long_s=arrived_long_s,
        slow_s=slow_s(sorted(latencies_s)),
    )


def left_of_batches(left: Iterable[Kind], work: Work) -> dict[str, float]:
    """What the unfinished jobs of each batch still need."""
    left_s: dict[str, float] = defaultdict(float)
    for kind in left:
        left_s[kind.batch_id] += kind.jobs * work.left_s(kind)
    return dict(left_s)


def is_known(cost: Cost) -> bool:
    """Whether a step's seconds rest on more than a guess: a profile, or live steps."""
    live = cost.live[0] if cost.live else Live.NONE
    basis = cost.bases[0] if cost.bases else cost.basis
    return basis is not Basis.ASSUMED or live is not Live.NONE


def ends_in_order(
    left: Sequence[Kind], work: Work, crews: Mapping[str, frozenset[str]]
) -> dict[str, float]:
    """Seconds until the last job of each batch ends, if work flows in the order of arrival.

    Jobs are taken to be so many, or so divisible, that no worker idles before all is done; only
    the longest job of each batch is looked at alone, because none is faster than its fastest dop.
    *crews* has the workers of each model; models of one crew share its time, those of others are
    taken to have workers of their own.
    """
    clocks_s: dict[frozenset[str], float] = defaultdict(float)
    ends_s: dict[str, float] = defaultdict(float)
    for kind in sorted(left, key=lambda kind: (-kind.priority, kind.seq)):
        crew = crews[kind.model]
        clocks_s[crew] += kind.jobs * work.left_s(kind) / len(crew)
        ends_s[kind.batch_id] = max(ends_s[kind.batch_id], clocks_s[crew])
    return _with_longest(ends_s, left, work)


def ends_by_shares(
    left: Sequence[Kind],
    work: Work,
    crews: Mapping[str, frozenset[str]],
    shares: Mapping[str, float],
) -> dict[str, float]:
    """The same if work flows from all batches at once, by their *shares* (1 where none is said)."""
    left_s: dict[frozenset[str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for kind in left:
        left_s[crews[kind.model]][kind.batch_id] += kind.jobs * work.left_s(kind)
    ends_s: dict[str, float] = defaultdict(float)
    for crew, batches in left_s.items():
        share_of = {batch: shares.get(batch, 1.0) for batch in batches}
        level_s = {batch: batches[batch] / share_of[batch] for batch in batches}
        sharing, clock_s, reached_s = sum(share_of.values()), 0.0, 0.0
        for batch in sorted(batches, key=lambda batch: (level_s[batch], batch)):
            clock_s += (level_s[batch] - reached_s) * sharing / len(crew)
            reached_s = level_s[batch]
            sharing -= share_of[batch]
            ends_s[batch] = max(ends_s[batch], clock_s)
    return _with_longest(ends_s, left, work)


def _with_longest(
    ends_s: Mapping[str, float], left: Iterable[Kind], work: Work
) -> dict[str, float]:
    """No batch ends before its longest job could alone; what others decode comes after."""
    found: dict[str, float] = defaultdict(float)
    for kind in left:
        cost = work.costs.cost(kind.model, kind.shape)
        alone_s = cost.dit_s(cost.fastest_dop, kind.steps_left) + cost.decode_s
        after_s = 0.0 if work.decodes else cost.decode_s
        found[kind.batch_id] = max(found[kind.batch_id], alone_s, ends_s[kind.batch_id] + after_s)
    return dict(found)
