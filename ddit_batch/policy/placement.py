"""From degrees of parallelism to workers: the room of one decision, used up as it is given away.

A ``Placement`` is made for one plan and thrown away with it, so nothing has to be reset. It keeps
what running jobs have, takes back and gives in the order of the calls, and never puts a group
across nodes. A group shrinks from its end and grows at its end: its leader stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import placed, to_decode
from ddit_batch.policy.idle_workers import IdleWorkers
from ddit_batch.policy.roster import Rooms
from ddit_batch.snapshot import JobView, Snapshot

_DENOISING = JobState.DENOISING


class Placement:
    """The workers that are not given yet, and the groups so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._idle = IdleWorkers(snapshot.workers)
        self._worker = self._idle.worker
        self._jobs = snapshot.jobs
        self.groups: dict[JobId, tuple[WorkerName, ...]] = {}
        """The decision so far, the leader of each group first."""

    @cached_property
    def _at_work(self) -> frozenset[WorkerName]:
        """Who works on a job now: whoever is to have them waits until it lets them go."""
        return frozenset(chain.from_iterable(job.group for job in self._jobs))

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

    def idle_workers(self) -> Rooms:
        """The workers that no group has, by room."""
        return self._idle.rooms()

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

    def keep_all(
        self, groups: Mapping[JobId, tuple[WorkerName, ...]], claimed: Sequence[WorkerName]
    ) -> bool:
        """Let jobs have the *groups* that they have, all in one go, if that is as good as in order.

        It is if no two of them, or of those that have *claimed* others, want the same worker, and
        all are idle: then it does not matter who is asked first. False: nobody is given anything.
        """
        names = list(chain.from_iterable(groups.values()))
        wanted = {*names, *claimed}
        if len(wanted) < len(names) + len(claimed) or not wanted <= self._idle.names:
            return False
        self._idle.take(names)
        self.groups.update(groups)
        return True

    def start(self, job: JobView, dop: int, among: Collection[WorkerName] | None = None) -> bool:
        """Give a job that has no workers *dop* of them on one node. False: no node has so many.

        They are *among* some, if it says so. Its last leader leads again if it can; otherwise the
        node is taken that has the fewest idle workers to spare, so that wide groups find room
        elsewhere. Workers that do nothing now come first. A running job that was to stop simply
        goes on, if its group can have been widened or narrowed; if not, another leads, so that it
        is given back first.
        """
        return self._start(job, dop, self._home(job, dop, among) or self._tightest(job, dop, among))

    def start_in(self, job: JobView, dop: int, room: Collection[WorkerName]) -> bool:
        """The same with the workers of one *room*, which are all of one node."""
        return self._start(job, dop, self._able_in(room, job))

    def _start(self, job: JobView, dop: int, able: list[WorkerName]) -> bool:
        """Give it *dop* of those who are *able*, all of one node, if there are so many."""
        if len(able) < dop:
            return False
        had = job.group or job.last_group
        able.sort()
        if had:
            able.sort(key=lambda name: (name not in had[:1], name not in had))
        if not job.group:
            able.sort(key=self._at_work.__contains__)
        group = tuple(able[:dop])
        if group[0] in job.group[:1] and not _is_one_in_the_other(group, job.group):
            group = (*group[1:], group[0])
        self._give(job, group)
        return True

    def _home(
        self, job: JobView, dop: int, among: Collection[WorkerName] | None
    ) -> list[WorkerName]:
        """The workers that the job could have where its last leader is; [] if it cannot lead."""
        had = job.group or job.last_group
        if not had or had[0] not in self._idle.names:
            return []
        able = self._able(job, self._worker[had[0]].node)
        if among is not None:
            able = [name for name in able if name in among]
        return able if had[0] in able and len(able) >= dop else []

    def _tightest(
        self, job: JobView, dop: int, among: Collection[WorkerName] | None
    ) -> list[WorkerName]:
        """The workers that it could have on the node with the least room that is enough."""
        if among is None:
            node = self._idle.tightest(job.model, dop)
            return [] if node is None else self._able(job, node)
        room: dict[str, list[WorkerName]] = {}
        for name in self._able_in(among, job):
            room.setdefault(self._worker[name].node, []).append(name)
        fitting = [(len(names), node) for node, names in room.items() if len(names) >= dop]
        return room[min(fitting)[1]] if fitting else []

    def widest(self, job: JobView, room: Collection[WorkerName] | None = None) -> int:
        """The most workers that the job could have on one node.

        A placed job: its own and idle ones, of a *room* on its node if it says so. Another: idle
        ones.
        """
        if job.job_id in self.groups:
            return len(self.groups[job.job_id]) + len(self._joining(job, room))
        return self._idle.widest(job.model)

    def widen(self, job: JobView, dop: int, room: Collection[WorkerName] | None = None) -> bool:
        """Let a placed job have *dop* workers, more than it has. False: there are too few.

        The new ones are of a *room* on its node, if it says so.
        """
        group = self.groups[job.job_id]
        more = self._joining(job, room)[: dop - len(group)]
        if len(group) + len(more) < dop:
            return False
        self._give(job, (*group, *more))
        return True

    def _joining(
        self, job: JobView, room: Collection[WorkerName] | None = None
    ) -> list[WorkerName]:
        """The idle workers that could join a placed job, first those that do nothing now.

        Where the job is to have less than its present group, only those of that group: a target
        with less of it and with others would neither contain it nor be contained in it.
        """
        group = self.groups[job.job_id]
        node = self._worker[group[0]].node
        if room is None:
            able = self._able(job, node)
        else:
            able = sorted(n for n in self._able_in(room, job) if self._worker[n].node == node)
        if set(job.group).issubset(group):
            return sorted(able, key=self._at_work.__contains__)
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

    def _able(self, job: JobView, node: str) -> list[WorkerName]:
        return self._idle.on(node, job.model)

    def _able_in(self, names: Collection[WorkerName], job: JobView) -> list[WorkerName]:
        idle, worker, model = self._idle.names, self._worker, job.model
        return [name for name in names if name in idle and model in worker[name].models]

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
