"""What a term knows beside its snapshots, looked at now and then because a look takes a while.

Three things: what steps cost by now (and so the policy, a value made of costs), how busy it has
been, and when batches will be done. All of it is read from Postgres; a new lookout finds the same,
so a restarted scheduler decides as before as soon as it has looked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from ddit_batch.backlog import Kind, Work, left_of_batches, mean_work_s, recent_of
from ddit_batch.cost_model import CostModel
from ddit_batch.db.backlog import read_ended, read_left
from ddit_batch.db.step_times import step_observations
from ddit_batch.policy.base import Policy, dit_workers
from ddit_batch.recent import spans
from ddit_batch.scheduler.ends import batch_ends
from ddit_batch.snapshot import Recent, Snapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """How often to look, in seconds."""

    costs_s: float = 10.0
    """Between two refinements of the costs by what live steps took."""
    backlog_s: float = 2.0
    """Between two looks at all that is left to do, at least."""
    share: float = 0.02
    """The most of the scheduler's time that those looks may take, however long one takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the last look at the backlog has shown."""

    recent: Recent
    kinds: tuple[Kind, ...]
    """All that was left to do."""
    work_s: dict[str, float]
    """GPU-seconds at dop 1 that each batch still needed."""


class Lookout:
    """Looks when it is time, and remembers what it saw until the next time."""

    def __init__(
        self,
        engine: Engine,
        costs: CostModel,
        make_policy: Callable[[CostModel], Policy],
        intervals: Intervals | None = None,
    ) -> None:
        self._engine = engine
        self._make_policy = make_policy
        self._intervals = intervals or Intervals()
        self.costs = costs
        """What steps cost, as refined so far."""
        self.policy = make_policy(costs)
        """Made of those costs."""
        self.outlook = Outlook(recent=Recent(), kinds=(), work_s={})
        self._refined_s: float | None = None
        self._next_look_s = 0.0

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All that was left to do at the last look."""
        return self.outlook.kinds

    def refine(self) -> None:
        """Take in what live steps took, if it is time; a new policy if that changed a cost."""
        now_s = time.monotonic()
        is_early = self._refined_s is not None and now_s - self._refined_s < self._intervals.costs_s
        if self.costs.is_fixed or is_early:
            return
        self._refined_s = now_s
        costs = self.costs.refined(step_observations(self._engine))
        if costs is not self.costs:
            self.costs = costs
            self.policy = self._make_policy(costs)
            logger.info("costs refined by live steps", extra={"action": "costs_refined"})

    def look(self, snapshot: Snapshot) -> dict[str, float] | None:
        """Look at the backlog, if it is time.

        Returns the seconds until each batch is done as far as that can be told; None: not yet time.
        """
        begun_s = time.monotonic()
        if begun_s < self._next_look_s:
            return None
        workers = dit_workers(snapshot)
        work = Work(costs=self.costs, decodes=any(worker.decodes for worker in workers))
        left = read_left(self._engine)
        span = spans(mean_work_s((*left.kinds, *left.latest), work), len(workers))
        ended = read_ended(
            self._engine,
            since_s=left.now_s - span.latency_s,
            newer_s=left.now_s - span.load_s,
        )
        self.outlook = Outlook(
            recent=recent_of(
                left.kinds,
                ended.kinds,
                work=work,
                workers=len(workers),
                now_s=left.now_s,
                span=span,
                latencies_s=ended.latencies_s,
            ),
            kinds=left.kinds,
            work_s=left_of_batches(left.kinds, work),
        )
        ends_s = batch_ends(left.kinds, work, self.policy, snapshot, left.shares)
        took_s = time.monotonic() - begun_s
        rest_s = max(self._intervals.backlog_s, took_s / self._intervals.share)
        self._next_look_s = begun_s + rest_s
        return ends_s

    def completed(self, snapshot: Snapshot) -> Snapshot:
        """*snapshot* with what the last look has shown.

        A batch that is newer than that look is taken to have the work of its jobs in view.
        """
        seen = self.outlook.work_s
        new = {view.batch_id for view in snapshot.batches} - seen.keys()
        in_view = dict.fromkeys(new, 0.0)
        for job in snapshot.jobs:
            if job.batch_id in new:
                cost = self.costs.cost(job.model, job.shape)
                in_view[job.batch_id] += cost.dit_s(1, job.steps_left)
        batches = tuple(
            replace(view, work_s=seen.get(view.batch_id, in_view.get(view.batch_id, 0.0)))
            if view.deadline_s is not None
            else view
            for view in snapshot.batches
        )
        return replace(snapshot, batches=batches, recent=self.outlook.recent)
