"""How a transformer is told to split its sequence: one small interface, a library behind each.

Each library is the other's cross-check: on the CPU they give the same bits, at every dop.
"""

from __future__ import annotations

from typing import Any, Protocol

from ddit_batch.model_config import Backend
from ddit_batch.phases.sequence_parallel.mesh import Mesh


class SequenceParallel(Protocol):
    """One transformer whose sequence can be split."""

    def split(self, mesh: Mesh, *, tokens: int) -> None:
        """From the next call on split sequences of *tokens* over *mesh*, in all of its ranks.

        To be said before every call: the libraries keep it where other models of the process could
        have said otherwise. Costs microseconds when nothing changes.
        """


def sequence_parallel(backend: Backend, transformer: Any) -> SequenceParallel:
    """The way of *backend* to split the sequence of *transformer*, which was loaded for it."""
    match backend:
        case Backend.XFUSER:
            from ddit_batch.phases.sequence_parallel.xfuser_backend import (  # noqa: PLC0415 -- its import costs
                XfuserSequenceParallel,
            )

            return XfuserSequenceParallel(transformer)
        case Backend.DIFFUSERS:
            from ddit_batch.phases.sequence_parallel.diffusers_backend import (  # noqa: PLC0415
                DiffusersSequenceParallel,
            )

            return DiffusersSequenceParallel(transformer)
