"""The SP group: workers that denoise one job together, as an object that is passed around.

A group is formed once and never changes; to grow or shrink, a new one is formed beside it and takes
its place at a step boundary. The first member leads: at every boundary it gives the others one
order. Forming talks through a store only to find the other members, so it can go on in a side
thread while the same processes step in another group.
"""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

import torch
import torch.distributed as dist
from torch import Tensor

from ddit_batch.errors import GroupBroken
from ddit_batch.model_config import Parallelism
from ddit_batch.phases.device import is_out_of_memory, synchronize
from ddit_batch.phases.sequence_parallel.forming import Forming
from ddit_batch.phases.sequence_parallel.mesh import LONE_AXIS, LONE_MESH, Axis, Mesh
from ddit_batch.phases.sequence_parallel.torch_private import Store, abort, has_failed
from ddit_batch.phases.sequence_parallel.watch import PeerWatch

_CPU = torch.device("cpu")
_AS_LONG_AS_IT_TAKES = timedelta(days=365)


class Order(IntEnum):
    """What the leader tells the others at a step boundary."""

    STEP = 0
    """Take the next step."""
    CHANGE = 1
    """Go over to the group of an epoch; who is not in it leaves."""
    END = 2
    """Leave: the job goes on without a group, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One order as a follower heard it."""

    order: Order
    epoch: int
    """Of a CHANGE: the plan epoch whose group comes next."""
    has_newcomers: bool
    """Of a CHANGE: the leader sends the state in the new group."""


class SPGroup:
    """Workers that denoise one job together, as one of them sees it.

    Everything that goes wrong between members raises GroupBroken; the group is of no use then and
    is to be closed with ``abort``.
    """

    def __init__(
        self,
        members: tuple[str, ...],
        *,
        everybody: Axis,
        whole: Mesh,
        half: Mesh | None,
        device: torch.device,
        axes: Sequence[Axis],
        store: Store | None = None,
        watched: Axis | None = None,
        timeout_s: float,
    ) -> None:
        self.members = members
        """The leader first."""
        self.whole = whole
        """All members, splitting one sequence."""
        self.half = half
        """Half of the members, splitting the sequence with the prompt or the one without; None
        where guidance is not parallel."""
        self.device = device
        self.timeout_s = timeout_s
        """How long a member waits for the others in one exchange."""
        self._everybody = everybody
        self._axes = tuple(axes)
        self._store = store  # torch keeps alive what is C++ of it, not what is Python
        self._closing = threading.Lock()
        self._is_closed = False
        self._missed: str | None = None
        self._watch = None if watched is None else PeerWatch(watched, self._miss)

    @property
    def rank(self) -> int:
        """This process's place among the members; 0 leads."""
        return self._everybody.rank

    @property
    def size(self) -> int:
        """The dop."""
        return self._everybody.size

    @property
    def is_lone(self) -> bool:
        """Nobody else is in it."""
        return self.size == 1

    def mesh(self, *, is_guided: bool) -> Mesh:
        """Who splits the sequence of a step, guided or not."""
        return self.half if is_guided and self.half is not None else self.whole

    @property
    def is_first_half(self) -> bool:
        """Where guidance is parallel: this member asks with the prompt."""
        return 2 * self.rank < self.size

    def order(self, order: Order, *, epoch: int = 0, has_newcomers: bool = False) -> None:
        """Tell the others, if there are any, what comes next. For the leader.

        Raises:
            GroupBroken: One of them is gone.
        """
        assert self.rank == 0, f"{self.members[self.rank]} gives orders and does not lead"
        self.broadcast(torch.tensor([order, epoch, has_newcomers], dtype=torch.int64))

    def await_order(self) -> Heard:
        """What the leader says next. For everybody else.

        Raises:
            GroupBroken: It said nothing within the group's timeout, or a member is gone.
        """
        order, epoch, has_newcomers = self.broadcast(torch.zeros(3, dtype=torch.int64)).tolist()
        return Heard(order=Order(order), epoch=epoch, has_newcomers=bool(has_newcomers))

    def welcome(self, members: Collection[str]) -> None:
        """Tell *members*, who wait for it, that the group begins to work. For the leader.

        Raises:
            GroupBroken: One of them is gone, or did not wait within the group's timeout.
        """
        with self.breaking("welcoming"):
            for rank, member in enumerate(self.members):
                if member in members:
                    dist.send(torch.zeros(1), group=self._everybody.process_group, group_dst=rank)

    def await_welcome(self) -> None:
        """Wait until the leader begins to work with the group, however long its step takes.

        Raises:
            GroupBroken: The leader is gone or has closed the group.
        """
        with self.breaking("waiting"):
            self._await_leader(torch.zeros(1))

    def broadcast(self, tensor: Tensor, *, root: int = 0) -> Tensor:
        """Overwrite *tensor*, contiguous, with that of rank *root*; on the CPU or on ``device``.

        Raises:
            GroupBroken: A member is gone or did not come in time.
        """
        if self.is_lone:  # there is no process group; torch would take the default one
            return tensor
        with self.breaking("exchanging"):
            dist.broadcast(tensor, group=self._everybody.process_group, group_src=root)
        return tensor

    def exchange_halves(self, mine: Tensor) -> tuple[Tensor, Tensor]:
        """What the first half and the second half have computed; *mine* is equal in all of mine.

        Raises:
            GroupBroken: A member is gone or did not come in time.
        """
        mine = mine.contiguous()
        other = torch.empty_like(mine)
        first, second = (mine, other) if self.is_first_half else (other, mine)
        return self.broadcast(first), self.broadcast(second, root=self.size // 2)

    @contextmanager
    def breaking(self, doing: str) -> Iterator[None]:
        """Turn what the libraries raise in the block, while *doing* something, into GroupBroken.

        Out of memory stays what it is, and so does everything in a group of one.
        """
        try:
            yield
            self._settle()
        except RuntimeError as exc:
            if self.is_lone or is_out_of_memory(exc):
                raise
            # Frames keep the connections open in which others wait, for as long as the error lives.
            traceback.clear_frames(exc.__traceback__)
            raise GroupBroken(
                f"the group {', '.join(self.members)} broke while {self.members[self.rank]} was "
                f"{doing}: a member died, hung for {self.timeout_s:g} s or left; the state of the "
                f"last completed step is good: go on without it ({exc})"
            ) from exc

    def close(self, *, abort: bool = False) -> None:
        """Leave the group; what was private to it in torch is gone then. May be called again.

        *abort* when it is broken: does not wait for what still runs on the device.
        """
        with self._closing:
            if self._is_closed or self.is_lone:
                return
            self._is_closed = True
        if self._watch is not None:
            self._watch.close(abort=abort)
        if not abort:
            synchronize(self.device)
        for axis in self._axes:
            axis.close()
        self._store = None

    def _await_leader(self, message: Tensor) -> None:
        """A frame of its own, for ``breaking`` to clear of the work and its connection."""
        work = dist.irecv(message, group=self._everybody.process_group, group_src=0)
        assert work is not None
        work.wait(_AS_LONG_AS_IT_TAKES)

    def _settle(self) -> None:
        """Wait for the device, and find out whether what it did counts.

        A collective of NCCL that was aborted, or that timed out, raises nothing by itself.
        """
        if self.is_lone or self.device.type == "cpu":
            return
        synchronize(self.device)
        if self._missed is not None:
            raise RuntimeError(f"{self._missed} is gone")
        if any(has_failed(group) for axis in self._axes if (group := axis.process_group)):
            raise RuntimeError("NCCL reports a failure")

    def _miss(self, rank: int) -> None:
        """Another member died or broke off: whatever waits for it on the device shall not."""
        self._missed = self.members[rank]
        for axis in self._axes:
            if axis.process_group is not None:
                abort(axis.process_group)


def lone_group(me: str) -> SPGroup:
    """The group of *me* alone: nothing to form, nothing to close, nothing that could break."""
    return SPGroup(
        (me,),
        everybody=LONE_AXIS,
        whole=LONE_MESH,
        half=None,
        device=_CPU,
        axes=(),
        timeout_s=math.inf,
    )


def form_group(
    store: Store,
    *,
    name: str,
    members: tuple[str, ...],
    me: str,
    parallelism: Parallelism,
    device: torch.device,
    timeout_s: float,
    form_timeout_s: float | None = None,
) -> SPGroup:
    """The group of *members*, as *me*, one of them, sees it; blocks until all of them have come.

    May run in a side thread while another thread steps in another group.

    Args:
        store: Where the members find each other; nothing else of it is used once they have.
        name: The same for all members, and never used again in this process or *store*.
        members: Any workers in any order; the first one leads.
        me: Which of them this process is.
        parallelism: How they will share a step.
        device: Of this process's model.
        timeout_s: How long a member waits for the others in one exchange.
        form_timeout_s: How long it waits for them to come; as long, if not said.

    Raises:
        GroupBroken: Not all of them came in time.
    """
    assert len(set(members)) == len(members), f"a worker is in a group twice: {members}"
    if members == (me,):
        return lone_group(me)
    forming = Forming(
        store=store,
        name=name,
        me=members.index(me),
        device=device,
        timeout_s=timeout_s,
        form_timeout_s=timeout_s if form_timeout_s is None else form_timeout_s,
    )
    try:
        everybody = forming.axis("all", tuple(range(len(members))))
        whole = forming.mesh(everybody, "all", range(len(members)), ring=parallelism.ring)
        half = None
        if parallelism.guidance and len(members) % 2 == 0:
            half = forming.half(len(members), ring=parallelism.ring)
        watched = forming.watched(len(members))
    except RuntimeError as exc:
        traceback.clear_frames(exc.__traceback__)
        forming.close()
        raise GroupBroken(
            f"the group {', '.join(members)} ({name}) did not form, as {me} sees it: a member is "
            f"gone, was not told or did not come in {forming.form_timeout_s:g} s; go on as before "
            f"({exc})"
        ) from exc
    return SPGroup(
        members,
        everybody=everybody,
        whole=whole,
        half=half,
        device=device,
        axes=forming.made,
        store=store,
        watched=watched,
        timeout_s=timeout_s,
    )
