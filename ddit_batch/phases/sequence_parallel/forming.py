"""The process groups inside one SP group, and who talks in which.

All members make them in the same order. Each takes a few milliseconds, most of them waiting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ddit_batch.phases.sequence_parallel.mesh import LONE_AXIS, Axis, Mesh
from ddit_batch.phases.sequence_parallel.torch_private import Store, make_process_group

_CPU = torch.device("cpu")


class Forming:
    """The process groups of one SP group, made in an order that is the same for all members."""

    def __init__(
        self,
        *,
        store: Store,
        name: str,
        me: int,
        device: torch.device,
        timeout_s: float,
        form_timeout_s: float,
    ) -> None:
        self.form_timeout_s = form_timeout_s
        """How long each process group waits for its members."""
        self.made: list[Axis] = []
        """What exists so far, to be closed in the end."""
        self._store = store
        self._name = name
        self._me = me
        self._device = device
        self._timeout_s = timeout_s

    def axis(self, label: str, ranks: Sequence[int]) -> Axis:
        """This member among *ranks* of the SP group, which hold it."""
        return self._axis(label, ranks, self._device)

    def mesh(self, everybody: Axis, label: str, ranks: Sequence[int], *, ring: int) -> Mesh:
        """*ranks* splitting one sequence, in rings of the largest size that *ring* allows."""
        around = math.gcd(len(ranks), ring)
        if around == 1:
            return Mesh(everybody)
        across = len(ranks) // around
        row, column = divmod(everybody.rank, across)
        return Mesh(
            everybody,
            ulysses=self.axis(f"{label}/row{row}", ranks[row * across : (row + 1) * across]),
            ring=self.axis(f"{label}/column{column}", ranks[column::across]),
        )

    def half(self, size: int, *, ring: int) -> Mesh:
        """The half of *size* ranks that this member is in."""
        side = self._me * 2 // size
        ranks = range(side * size // 2, (side + 1) * size // 2)
        label = f"half{side}"
        return self.mesh(self.axis(label, ranks), label, ranks, ring=ring)

    def watched(self, size: int) -> Axis | None:
        """Where *size* members listen to each other; None where the collectives notice a death."""
        return None if self._device.type == "cpu" else self._axis("watch", range(size), _CPU)

    def close(self) -> None:
        """Give up what was made."""
        for axis in self.made:
            axis.close()

    def _axis(self, label: str, ranks: Sequence[int], device: torch.device) -> Axis:
        if len(ranks) == 1:
            return LONE_AXIS
        rank = ranks.index(self._me)
        process_group = make_process_group(
            self._store,
            name=f"{self._name}/{label}",
            rank=rank,
            size=len(ranks),
            device=device,
            form_timeout_s=self.form_timeout_s,
            timeout_s=self._timeout_s,
        )
        made = Axis(rank=rank, size=len(ranks), process_group=process_group)
        self.made.append(made)
        return made
