"""The ranks that split one sequence of tokens: what xfuser and diffusers want of a group.

Both ask an object of their own kind (``GroupCoordinator``, ``DeviceMesh``) for sizes, ranks and
process groups. ``Mesh`` answers to the names that both use, so that a group can change without
either library being initialised again.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from ddit_batch.phases.sequence_parallel.torch_private import drop_process_group


class Axis:
    """This process among ranks that talk to each other."""

    def __init__(self, *, rank: int, size: int, process_group: dist.ProcessGroup | None) -> None:
        self.rank = rank
        self.size = size
        self._process_group = process_group

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """What they talk through; None for one rank alone.

        Raises:
            RuntimeError: It was closed. (None would be taken for the default group.)
        """
        if self._process_group is None and self.size > 1:
            raise RuntimeError("the group is closed")
        return self._process_group

    def close(self) -> None:
        """Let the process group go, wherever this axis is still known."""
        if self._process_group is not None:
            drop_process_group(self._process_group)
        self._process_group = None


LONE_AXIS = Axis(rank=0, size=1, process_group=None)


class Mesh:
    """Ranks that split one sequence, in order: rank i holds the i-th piece of the tokens.

    Inside an attention they exchange heads for tokens (Ulysses) along ``ulysses``, neighbours
    first, and pass keys and values on along ``ring``; without a ring ``ulysses`` is everybody.
    """

    def __init__(
        self, everybody: Axis, *, ulysses: Axis | None = None, ring: Axis = LONE_AXIS
    ) -> None:
        self.everybody = everybody
        self.ulysses = everybody if ulysses is None else ulysses
        self.ring = ring

    # What xfuser calls its sequence-parallel GroupCoordinator.

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.everybody.size

    @property
    def rank_in_group(self) -> int:
        """Mine."""
        return self.everybody.rank

    @property
    def ulysses_world_size(self) -> int:
        """Ranks that exchange heads for tokens."""
        return self.ulysses.size

    @property
    def ulysses_rank(self) -> int:
        """Mine among them."""
        return self.ulysses.rank

    @property
    def ring_world_size(self) -> int:
        """Ranks that pass keys and values on."""
        return self.ring.size

    @property
    def ring_rank(self) -> int:
        """Mine among them."""
        return self.ring.rank

    def all_gather(self, piece: Tensor, dim: int = 0) -> Tensor:
        """The pieces of all ranks, joined along *dim*."""
        if self.everybody.process_group is None:
            return piece
        piece = piece.contiguous()
        pieces = [torch.empty_like(piece) for _ in range(self.everybody.size)]
        dist.all_gather(pieces, piece, group=self.everybody.process_group)
        return torch.cat(pieces, dim=dim)

    # What diffusers calls a one-dimensional DeviceMesh.

    def size(self) -> int:
        """Ranks in all."""
        return self.everybody.size

    def get_group(self) -> dist.ProcessGroup | None:
        """The process group of all ranks."""
        return self.everybody.process_group

    def get_local_rank(self) -> int:
        """Mine."""
        return self.everybody.rank


LONE_MESH = Mesh(LONE_AXIS)
