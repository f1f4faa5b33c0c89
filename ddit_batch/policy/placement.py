"""From degrees of parallelism to workers: the room of one decision, used up as it is given away.

A ``Placement`` is made for one plan and thrown away with it, so nothing has to be reset. It keeps
what running jobs have, takes back and gives in the order of the calls, and never puts a group
across nodes. A group shrinks from its end and grows at its end: its leader stays.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Container, Iterable, Sequence

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.job import JobId, JobState, WorkerName
from ddit_batch.policy.base import dit_workers, placed, to_decode
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

        Workers that are gone, drain or are given already are left out, and with a leader the whole
        group. One of the present group that must be left out goes before others come: a target
        that did both would neither contain the present group nor be contained in it. Returns how
        many it has now; 0 means that it is to be given back.
        """
        group = job.next_group[:dop]
        if not group or not self._is_idle(group[0]):
            return 0
        left = tuple(filter(self._is_idle, group))
        if not all(map(self._is_idle, job.group)):
            left = tuple(name for name in left if name in job.group)
        for name in left:
            self._idle[self._worker[name].node].remove(name)
        self.groups[job.job_id] = left
        return len(left)

    def start(self, job: JobView, dop: int, among: Container[WorkerName] | None = None) -> bool:
        """Give a job that has no workers *dop* of them on one node. False: no node has so many.

        They are *among* some, if it says so. Its last leader leads again if it can; otherwise the
        node is taken that has the fewest idle workers to spare, so that wide groups find room
        elsewhere.
        """
        nodes = {node: self._able(job, node) for node in self._idle}
        if among is not None:
            nodes = {node: [n for n in able if n in among] for node, able in nodes.items()}
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

    def decode(self, job: JobView, *, whole: bool) -> bool:
        """Give a denoised job the worker that led it, or if *whole* all that denoised it.

        Those of them that are not idle are left out; if none is, any one that decodes will do.
        False: there is none.
        """
        able = {
            name: (len(names), node)
            for node, names in self._idle.items()
            for name in self._able(job, node)
            if self._worker[name].decodes
        }
        last = tuple(name for name in job.last_group if name in able)
        group = last if whole else last[:1]
        if not group and able:
            group = (min(able, key=lambda name: (*able[name], name)),)
        self._give(job, group)
        return bool(group)

    def withhold(self, names: Iterable[WorkerName]) -> None:
        """Take *names* out of this plan: nobody else is given them."""
        for name in filter(self._is_idle, names):
            self._idle[self._worker[name].node].remove(name)

    def _is_idle(self, name: WorkerName) -> bool:
        worker = self._worker.get(name)
        return worker is not None and name in self._idle[worker.node]

    def _able(self, job: JobView, node: str) -> Sequence[WorkerName]:
        return [name for name in self._idle[node] if job.model in self._worker[name].models]

    def _give(self, job: JobView, group: tuple[WorkerName, ...]) -> None:
        had = self.groups.get(job.job_id, ())
        for name in group[len(had) :]:
            self._idle[self._worker[name].node].remove(name)
        if group:
            self.groups[job.job_id] = group


def unchanged(snapshot: Snapshot, costs: CostModel, *, whole: bool) -> Placement:
    """The room of one decision in which every placed job keeps what it has, and no more.

    Denoised jobs come next, before anything that waits: each gets its leader, or if *whole* all of
    its last group. *whole* also says what becomes of a running group that has lost a worker: it is
    given back, or goes on with a legal number of the others. Workers that are given back are
    nobody's until they are idle.
    """
    room = Placement(snapshot)
    live = {worker.name for worker in dit_workers(snapshot)}
    # What a worker does comes before what was sent to it.
    for job in sorted(placed(snapshot), key=lambda job: not job.held):
        running = job.state is JobState.DENOISING
        if not (whole and running) or live.issuperset(job.group):
            left = room.keep(job)
            legal = costs.cost(job.model, job.shape).widest(left) if running and left else left
            if legal < left:
                room.narrow(job, legal)
        if job.job_id not in room.groups:
            room.withhold((*job.group, *job.next_group))
    for job in to_decode(snapshot):
        room.decode(job, whole=whole)
    return room


def start_up_to(room: Placement, job: JobView, dop: int, cost: Cost) -> bool:
    """Give a waiting job *dop* workers, or the most that is legal and idle. False: none is."""
    workers = min(dop, room.widest(job))
    return workers > 0 and room.start(job, cost.widest(workers))
