"""The idle workers of one decision, by node, and the nodes by how much room they have.

Made for one plan and thrown away with it. A plan for thousands of workers asks a thousand times for
the node with the least room that is enough; so the nodes are kept in order of their room, for each
model that was asked for.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from ddit_batch.job import WorkerName
from ddit_batch.policy.roster import Rooms, roster_of
from ddit_batch.snapshot import WorkerView


class IdleWorkers:
    """Workers that no group has. ``names`` says in one look which they are."""

    def __init__(self, workers: Sequence[WorkerView]) -> None:
        self.roster = roster_of(workers)
        self.worker = self.roster.dit_by_name
        """All of them, idle or not, in order of name."""
        self.names = set(self.worker)
        self._by_node: dict[str, list[WorkerName]] | None = None
        """Made when a node is first looked at: most workers are taken before that, by jobs that
        keep what they have, and cost no more than a look into ``names``."""
        self._room: dict[str, dict[str, int]] = {}
        """How many on each node serve a model; for the models that were asked for."""
        self._nodes: dict[str, dict[int, list[str]]] = {}
        """The same the other way round, nodes in order of name."""

    @property
    def _on(self) -> dict[str, list[WorkerName]]:
        """By node, in order of name."""
        if self._by_node is None:
            self._by_node = {worker.node: [] for worker in self.worker.values()}
            for name, worker in self.worker.items():
                if name in self.names:
                    self._by_node[worker.node].append(name)
        return self._by_node

    @property
    def nodes(self) -> Iterable[str]:
        """All nodes, with idle workers or without."""
        return self._on.keys()

    def on(self, node: str, model: str) -> list[WorkerName]:
        """Those on *node* that serve *model*, in order of name."""
        return [name for name in self._on[node] if model in self.worker[name].models]

    def tightest(self, model: str, count: int) -> str | None:
        """The node with the least room for *model* that is enough for *count*; None: there is none.

        Of equal ones the first by name.
        """
        self._count(model)
        nodes = self._nodes[model]
        enough = min((room for room, found in nodes.items() if found and room >= count), default=0)
        return nodes[enough][0] if enough else None

    def widest(self, model: str) -> int:
        """The most idle workers that serve *model* on one node."""
        self._count(model)
        return max((room for room, found in self._nodes[model].items() if found), default=0)

    def take(self, names: Sequence[WorkerName]) -> None:
        """They are not idle any more; all of them were."""
        assert self.names.issuperset(names), "a worker is given twice"
        self.names.difference_update(names)
        if self._by_node is not None:
            for name in names:
                self._by_node[self.worker[name].node].remove(name)
                self._recount(name, -1)

    def rooms(self) -> Rooms:
        """By room."""
        busy = self.worker.keys() - self.names
        return self.roster.rooms.without(busy) if busy else self.roster.rooms

    def put_back(self, names: Iterable[WorkerName]) -> None:
        """They are idle again."""
        for name in names:
            self.names.add(name)
            if self._by_node is not None:
                insort(self._by_node[self.worker[name].node], name)
                self._recount(name, 1)

    def _count(self, model: str) -> None:
        """Count the room of every node for a model that is asked for the first time."""
        if model not in self._room:
            self._room[model] = {node: len(self.on(node, model)) for node in self._on}
            self._nodes[model] = {}
            for node, room in sorted(self._room[model].items()):
                self._nodes[model].setdefault(room, []).append(node)

    def _recount(self, name: WorkerName, change: int) -> None:
        worker = self.worker[name]
        for model, rooms in self._room.items():
            if model in worker.models:
                nodes, room = self._nodes[model], rooms[worker.node]
                del nodes[room][bisect_left(nodes[room], worker.node)]
                rooms[worker.node] = room + change
                insort(nodes.setdefault(room + change, []), worker.node)
