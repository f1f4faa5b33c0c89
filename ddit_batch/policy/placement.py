"""From degrees of parallelism to workers: the room of one decision, used up as it is given away.

A ``Placement`` is made for one plan and thrown away with it, so nothing has to be reset. It keeps
what running jobs have, takes back and gives in the order of the calls, and never puts a group
across nodes. A group shrinks from its end and grows at its end: its leader stays.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from ddit_batch.job import JobId, WorkerName
from ddit_batch.policy.base import dit_workers
from ddit_batch.snapshot import JobView, Snapshot


class Placement:
    """The workers that are not given yet, and the groups so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        workers = dit_workers(snapshot)
        self._worker = {worker.name: worker for worker in workers}
        self._idle: dict[str, list[WorkerName]] = {worker.node: [] for worker in workers}
        for worker in workers:
            self._idle[worker.node].append(worker.name)
        self.groups: dict[JobId, tuple[WorkerName, ...]] = {}
        """The decision so far, the leader of each group first."""

    @property
    def idle(self) -> int:
        """Workers that no group has."""
        return sum(map(len, self._idle.values()))

    def keep(self, job: JobView, dop: int | None = None) -> int:
        """Let a placed job have the first *dop* of its workers; all of them if None.

        Workers that are gone or drain are left out, and with a leader the whole group. Returns how
        many it has now; 0 means that it is to be given back.
        """
        group = job.next_group[:dop]
        if not group or group[0] not in self._worker:
            return 0
        left = tuple(name for name in group if name in self._worker)
        for name in left:
            self._idle[self._worker[name].node].remove(name)
        self.groups[job.job_id] = left
        return len(left)

    def start(self, job: JobView, dop: int) -> bool:
        """Give a job that has no workers *dop* of them on one node. False: no node has so many.

        Its last leader leads again if it can; otherwise the node is taken that has the fewest idle
        workers to spare, so that wide groups find room elsewhere.
        """
        nodes = {node: self._able(job, node) for node in self._idle}
        fitting = [node for node, able in nodes.items() if len(able) >= dop]
        if not fitting:
            return False
        last = job.last_group[:1]
        node = min(fitting, key=lambda n: (not set(last) <= set(nodes[n]), len(nodes[n]), n))
        able = sorted(nodes[node], key=lambda name: (name not in job.last_group, name))
        leader = [name for name in last if name in able]
        self._give(job, (*leader, *(name for name in able if name not in leader))[:dop])
        return True

    def widest(self, job: JobView) -> int:
        """The most idle workers that the job could have on one node: its own, or any."""
        group = self.groups.get(job.job_id)
        if group:
            return len(group) + len(self._able(job, self._worker[group[0]].node))
        return max((len(self._able(job, node)) for node in self._idle), default=0)

    def widen(self, job: JobView, dop: int) -> bool:
        """Let a placed job have *dop* workers, more than it has. False: its node has too few."""
        group = self.groups[job.job_id]
        more = self._able(job, self._worker[group[0]].node)[: dop - len(group)]
        if len(group) + len(more) < dop:
            return False
        self._give(job, (*group, *more))
        return True

    def narrow(self, job: JobView, dop: int) -> None:
        """Let a placed job have the first *dop* of its workers; 0 takes it out."""
        group = self.groups.pop(job.job_id)
        for name in group[dop:]:
            insort(self._idle[self._worker[name].node], name)
        if dop:
            self.groups[job.job_id] = group[:dop]

    def _able(self, job: JobView, node: str) -> Sequence[WorkerName]:
        return [name for name in self._idle[node] if job.model in self._worker[name].models]

    def _give(self, job: JobView, group: tuple[WorkerName, ...]) -> None:
        had = self.groups.get(job.job_id, ())
        for name in group[len(had) :]:
            self._idle[self._worker[name].node].remove(name)
        self.groups[job.job_id] = group
