"""What one job costs, as a value, and the two rules that read a dop off its step times.

Pure. Who makes a ``Cost``: ``cost_model``. Who asks for one: policies, simulator, estimates.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Basis(StrEnum):
    """How a number of seconds is known, the best first."""

    MEASURED = "measured"
    """Its very shape was measured."""
    INTERPOLATED = "interpolated"
    """Between measured shapes of fewer and of more tokens."""
    EXTRAPOLATED = "extrapolated"
    """Beyond the measured shapes."""
    ASSUMED = "assumed"
    """Nothing of the kind was measured: the number is a stated guess."""


class Live(StrEnum):
    """What live steps had to do with a number of seconds, the most first."""

    OBSERVED = "observed"
    """Steps of this very shape and dop were timed."""
    CARRIED = "carried"
    """Steps of other dops or shapes of the model were timed, and their ratio was carried over."""
    NONE = "none"
    """It is what the profile says."""


WORST_FIRST: tuple[Basis, ...] = tuple(reversed(Basis))


def weakest(bases: Sequence[Basis]) -> Basis:
    """The worst of *bases*, of which there is at least one."""
    return min(bases, key=WORST_FIRST.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one job of one model and shape costs. ``dops`` and ``step_s`` go together."""

    dops: tuple[int, ...]
    """The legal degrees of parallelism, ascending; the first is 1."""
    step_s: tuple[float, ...]
    """Seconds of one denoising step at each of ``dops``."""
    encode_s: float
    """Seconds of the encode phase on one worker."""
    decode_s: float
    """Seconds of the VAE phase on one worker."""
    optimal_dop: int
    """The paper's B: the dop whose doubling from its half gains the most; 1 if none gains."""
    fastest_dop: int
    """The dop of the shortest step: beyond it more workers only cost."""
    basis: Basis
    """The weakest of ``bases``."""
    bases: tuple[Basis, ...] = ()
    """How each of ``step_s`` is known; () where only ``basis`` was said."""
    live: tuple[Live, ...] = ()
    """What live steps had to do with each of ``step_s``; () for nothing."""
    encode_basis: Basis = Basis.ASSUMED
    decode_basis: Basis = Basis.ASSUMED
    fastest_s: float = field(init=False, repr=False, compare=False)
    """Seconds of a step at ``fastest_dop``."""
    _step_s: dict[int, float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_step_s", dict(zip(self.dops, self.step_s, strict=True)))
        object.__setattr__(self, "fastest_s", self._step_s[self.fastest_dop])

    def at(self, dop: int) -> float:
        """Seconds of a step at *dop*, one of ``dops``."""
        return self._step_s[dop]

    def widest(self, workers: int) -> int:
        """The largest legal dop that *workers* suffice for; they are at least 1."""
        return self.dops[bisect_right(self.dops, workers) - 1]

    def efficiency(self, dop: int) -> float:
        """Useful share of *dop* workers' time: t(1) / (dop * t(dop)). 1 is ideal scaling."""
        return self._step_s[1] / (dop * self._step_s[dop])

    def dit_s(self, dop: int, steps: int) -> float:
        """Seconds of *steps* denoising steps at *dop*."""
        return steps * self._step_s[dop]


def optimal_dop(step_s: Mapping[int, float]) -> int:
    """The paper's B of seconds by dop: the doubling with the largest gain; 1 if none gains.

    The gain of a doubling to i is ``z(i) = 1 - step(i) / step(i / 2)``. The argmax rule is the
    reading of arXiv 2506.13497 that reproduces its 1, 2 and 4 for 144p, 240p and 360p. Only powers
    of two count, each measured against its half; of equal gains the narrower wins.
    """
    best, best_gain = 1, 0.0
    dop = 2
    while dop in step_s and dop // 2 in step_s:
        gain = 1.0 - step_s[dop] / step_s[dop // 2]
        if gain > best_gain:
            best, best_gain = dop, gain
        dop *= 2
    return best


def fastest_dop(step_s: Mapping[int, float]) -> int:
    """The dop of the shortest step; of equal ones the narrowest."""
    return min(step_s, key=lambda dop: (step_s[dop], dop))
