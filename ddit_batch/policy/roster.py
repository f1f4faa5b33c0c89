"""The workers of a snapshot as policies look at them, found out once for as long as they stay.

Pure. What is here follows from the workers alone, whatever they do: so it stands with them, not
with a policy, and a driver that hands the same roster to many snapshots has it made once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import NewType

from ddit_batch.job import Incarnation, Phase, WorkerName
from ddit_batch.snapshot import WorkerView

_DIT = Phase.DIT

Room = NewType("Room", int)
"""Workers among which a group may be formed: those of one node that serve the same models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Workers by room, in order of node and models."""

    names: Sequence[Sequence[WorkerName]]
    """The workers of each room, in order of name, whether they count or not."""
    serves: Sequence[frozenset[str]]
    """The models of each room."""
    of: Mapping[WorkerName, Room]
    """Where each worker is, of those that count."""
    sizes: Sequence[int]
    """How many in each room count."""

    def without(self, names: Iterable[WorkerName]) -> Rooms:
        """These rooms, of whose workers *names* do not count; all of them did."""
        of, sizes = dict(self.of), list(self.sizes)
        for name in names:
            sizes[of.pop(name)] -= 1
        return Rooms(names=self.names, serves=self.serves, of=of, sizes=sizes)


class Roster(tuple[WorkerView, ...]):  # noqa: SLOT001 -- it has room for what is found out
    """Workers, as ``Snapshot.workers`` holds them."""

    @cached_property
    def incarnations(self) -> frozenset[Incarnation]:
        """Of all of them."""
        return frozenset(worker.incarnation for worker in self)

    @cached_property
    def expired(self) -> tuple[WorkerView, ...]:
        """Those whose lease has run out."""
        return tuple(worker for worker in self if worker.lease_expired)

    @cached_property
    def dit(self) -> tuple[WorkerView, ...]:
        """Those that may be given DiT work, in order of name."""
        able = [worker for worker in self if worker.phase is _DIT and not worker.draining]
        return tuple(sorted(able, key=attrgetter("name")))

    @cached_property
    def dit_by_name(self) -> Mapping[WorkerName, WorkerView]:
        """The same by name, in the same order."""
        return {worker.name: worker for worker in self.dit}

    @cached_property
    def rooms(self) -> Rooms:
        """The same by room."""
        alike: dict[tuple[str, frozenset[str]], list[WorkerName]] = defaultdict(list)
        for worker in self.dit:
            alike[worker.node, worker.models].append(worker.name)
        kinds = sorted(alike, key=lambda kind: (kind[0], sorted(kind[1])))
        names = [alike[kind] for kind in kinds]
        return Rooms(
            names=names,
            serves=[models for _, models in kinds],
            of={name: Room(room) for room, here in enumerate(names) for name in here},
            sizes=list(map(len, names)),
        )


def roster_of(workers: Sequence[WorkerView]) -> Roster:
    """*workers* as a roster; themselves if they are one."""
    return workers if isinstance(workers, Roster) else Roster(workers)
