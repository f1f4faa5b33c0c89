"""From degrees of parallelism to workers: the room of one decision, used up as it is given away.

A ``Placement`` is made for one plan and thrown away with it, so nothing has to be reset. It keeps
what running jobs have, takes back and gives in the order of the calls, and never puts a group
across nodes. A group shrinks from its end and grows at its end: its leader stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import dit_workers, placed, to_decode
from ddit_batch.policy.idle_workers import IdleWorkers
from ddit_batch.snapshot import JobView, Snapshot, WorkerView

_DENOISING = JobState.DENOISING


class Placement:
    """The workers that are not given yet, and the groups so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        workers = dit_workers(snapshot)
        self._worker = {worker.name: worker for worker in workers}
        self._idle = IdleWorkers(workers)
        self.groups: dict[JobId, tuple[WorkerName, ...]] = {}
        """The decision so far, the leader of each group first."""

    def knows(self, names: Iterable[WorkerName]) -> bool:
        """Whether all of *names* are workers that may be given work, idle or not."""
        return self._worker.keys() >= set(names)

    def serving(self, model: str) -> list[WorkerName]:
        """The idle workers that serve *model*."""
        return [name for name in self._idle.names if model in self._worker[name].models]

    @property
    def idle(self) -> int:
        """Workers that no group has."""
        return len(self._idle.names)

    def idle_workers(self) -> list[WorkerView]:
        """The workers that no group has, in order of name."""
        idle = self._idle.names
        return [worker for name, worker in self._worker.items() if name in idle]

    def keep(self, job: JobView, dop: int | None = None) -> int:
        """Let a placed job have the first *dop* of its workers; all of them if None.

        Workers that are gone, drain or are given already are left out, and with a leader the whole
        group. One of the present group that must be left out goes before others come: a target
        that did both would neither contain the present group nor be contained in it. Returns how
        many it has now; 0 means that it is to be given back.
        """
        group, idle = job.next_group[:dop], self._idle.names
        if not group or group[0] not in idle:
            return 0
        left = group
        if not idle.issuperset(group):
            left = tuple(name for name in group if name in idle)
        if group != job.group and not idle.issuperset(job.group):
            left = tuple(name for name in left if name in job.group)
        self._idle.take(left)
        self.groups[job.job_id] = left
        return len(left)

    def start(self, job: JobView, dop: int, among: Collection[WorkerName] | None = None) -> bool:
        """Give a job that has no workers *dop* of them on one node. False: no node has so many.

        They are *among* some, if it says so. Its last leader leads again if it can; otherwise the
        node is taken that has the fewest idle workers to spare, so that wide groups find room
        elsewhere. A running job that was to stop simply goes on, if its group can have been
        widened or narrowed; if not, another leads, so that it is given back first.
        """
        had = job.group or job.last_group
        node = self._node_for(job, dop, among)
        if node is None:
            return False
        able = self._able(job, node, among)
        able.sort(key=lambda name: (name not in had[:1], name not in had, name))
        group = tuple(able[:dop])
        if group[0] in job.group[:1] and not _is_one_in_the_other(group, job.group):
            group = (*group[1:], group[0])
        self._give(job, group)
        return True

    def _node_for(self, job: JobView, dop: int, among: Collection[WorkerName] | None) -> str | None:
        had = job.group or job.last_group
        leader = had[0] if had else None
        if leader in self._idle.names:
            node = self._worker[leader].node
            able = self._able(job, node, among)
            if leader in able and len(able) >= dop:
                return node
        if among is None:
            return self._idle.tightest(job.model, dop)
        room = Counter(
            self._worker[name].node
            for name in among
            if name in self._idle.names and job.model in self._worker[name].models
        )
        fitting = [(count, node) for node, count in room.items() if count >= dop]
        return min(fitting)[1] if fitting else None

    def widest(self, job: JobView, among: Collection[WorkerName] | None = None) -> int:
        """The most workers that the job could have on one node.

        A placed job: its own and idle ones, *among* some if it says so. Another: idle ones.
        """
        if job.job_id in self.groups:
            return len(self.groups[job.job_id]) + len(self._joining(job, among))
        return self._idle.widest(job.model)

    def widen(self, job: JobView, dop: int, among: Collection[WorkerName] | None = None) -> bool:
        """Let a placed job have *dop* workers, more than it has. False: there are too few.

        They are *among* some, if it says so.
        """
        group = self.groups[job.job_id]
        more = self._joining(job, among)[: dop - len(group)]
        if len(group) + len(more) < dop:
            return False
        self._give(job, (*group, *more))
        return True

    def _joining(
        self, job: JobView, among: Collection[WorkerName] | None = None
    ) -> list[WorkerName]:
        """The idle workers that could join a placed job, in the order in which they would.

        Where the job is to have less than its present group, only those of that group: a target
        with less of it and with others would neither contain it nor be contained in it.
        """
        group = self.groups[job.job_id]
        able = self._able(job, self._worker[group[0]].node, among)
        if set(job.group).issubset(group):
            return able
        return [name for name in job.group if name in able]

    def narrow(self, job: JobView, dop: int) -> None:
        """Let a placed job have the first *dop* of its workers; 0 takes it out."""
        group = self.groups.pop(job.job_id)
        self._idle.put_back(group[dop:])
        if dop:
            self.groups[job.job_id] = group[:dop]

    def decode(
        self, job: JobView, *, whole: bool, sparing: Collection[WorkerName] = frozenset()
    ) -> bool:
        """Give a denoised job the worker that led it, or if *whole* all that denoised it.

        Those of them that are not idle, or to be spared, are left out; if none is left, any other
        that decodes will do. False: there is none.
        """
        last = tuple(
            name
            for name in job.last_group
            if name in self._idle.names and name not in sparing and self._decodes(job, name)
        )
        group = last if whole else last[:1]
        if not group:
            able = [
                (len(found), node, name)
                for node in self._idle.nodes
                for found in (self._able(job, node),)
                for name in found
                if self._worker[name].decodes and name not in sparing
            ]
            group = (min(able)[2],) if able else ()
        self._give(job, group)
        return bool(group)

    def _decodes(self, job: JobView, name: WorkerName) -> bool:
        worker = self._worker[name]
        return worker.decodes and job.model in worker.models

    def withhold(self, names: Iterable[WorkerName]) -> None:
        """Take *names* out of this plan: nobody else is given them."""
        self._idle.take([name for name in dict.fromkeys(names) if name in self._idle.names])

    def _able(
        self, job: JobView, node: str, among: Collection[WorkerName] | None = None
    ) -> list[WorkerName]:
        able = self._idle.on(node, job.model)
        return able if among is None else [name for name in able if name in among]

    def _give(self, job: JobView, group: tuple[WorkerName, ...]) -> None:
        had = self.groups.get(job.job_id, ())
        self._idle.take(group[len(had) :])
        if group:
            self.groups[job.job_id] = group


def _is_one_in_the_other(group: Collection[WorkerName], other: Collection[WorkerName]) -> bool:
    return set(group) <= set(other) or set(group) >= set(other)


def unchanged(snapshot: Snapshot, costs: CostModel, *, whole: bool) -> Placement:
    """The room of one decision in which every placed job keeps what it has, and no more.

    Denoised jobs come next, before anything that waits: each gets its leader, or if *whole* all of
    its last group. *whole* also says what becomes of a running group that has lost a worker: it is
    given back, or goes on with a legal number of the others. Workers that are given back are
    nobody's until they are idle.
    """
    room = Placement(snapshot)
    # What a worker does comes before what was sent to it.
    for job in sorted(placed(snapshot), key=lambda job: not job.held):
        running = job.state is _DENOISING
        if not (whole and running) or room.knows(job.group):
            left = room.keep(job)
            if running and 0 < left < len(job.next_group):
                room.narrow(job, costs.cost(job.model, job.shape).widest(left))
        if job.job_id not in room.groups:
            room.withhold((*job.group, *job.next_group))
    for job in to_decode(snapshot):
        room.decode(job, whole=whole)
    return room


def start_up_to(room: Placement, job: JobView, dop: int, cost: Cost) -> bool:
    """Give a waiting job *dop* workers, or the most that is legal and idle. False: none is."""
    workers = min(dop, room.widest(job))
    return workers > 0 and room.start(job, cost.widest(workers))
