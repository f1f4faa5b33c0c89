"""What a job costs: seconds by model, shape and dop. Data and arithmetic, nothing else.

Pure: a profile is read elsewhere. Policies, the simulator and the estimates that users see all ask
the same ``CostModel``, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ddit_batch.job import Shape


class Basis(StrEnum):
    """How a cost is known."""

    MEASURED = "measured"
    """Its very shape was measured."""
    INTERPOLATED = "interpolated"
    """Between measured shapes of fewer and of more tokens."""
    EXTRAPOLATED = "extrapolated"
    """Beyond the measured shapes."""
    ASSUMED = "assumed"
    """Nothing of the model was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one job of one model and shape costs. ``dops`` and ``step_s`` go together."""

    dops: tuple[int, ...]
    """The legal degrees of parallelism, ascending; the first is 1."""
    step_s: tuple[float, ...]
    """Seconds of one denoising step at each of ``dops``."""
    encode_s: float
    decode_s: float
    """Seconds of the VAE phase on one worker."""
    optimal_dop: int
    """The paper's B: the dop whose doubling from its half gains the most; 1 if none gains."""
    fastest_dop: int
    """The dop of the shortest step: beyond it more workers only cost."""
    basis: Basis

    def at(self, dop: int) -> float:
        """Seconds of a step at *dop*, one of ``dops``."""
        return self.step_s[self.dops.index(dop)]

    def widest(self, workers: int) -> int:
        """The largest legal dop that *workers* suffice for; they are at least 1."""
        return max(dop for dop in self.dops if dop <= workers)


ASSUMED = Cost(
    dops=(1, 2, 4, 8),
    step_s=(1.0, 0.55, 0.3, 0.17),
    encode_s=1.0,
    decode_s=2.0,
    optimal_dop=4,
    fastest_dop=8,
    basis=Basis.ASSUMED,
)
"""Of a job of which nothing is known. B is 4, its doubling gains most: 0.55 to 0.3 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """The costs of all jobs. ``table`` holds measured ones."""

    table: Mapping[tuple[str, Shape], Cost]

    def cost(self, model: str, shape: Shape) -> Cost:
        """What a job of *model* and *shape* costs."""
        return self.table.get((model, shape), ASSUMED)

    def shapes(self, model: str) -> tuple[Shape, ...]:
        """The shapes of *model* that were measured."""
        return tuple(shape for name, shape in self.table if name == model)
