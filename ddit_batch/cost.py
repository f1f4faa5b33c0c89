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


_KEPT = 128
"""Numbers of steps for which a cost remembers what is left; few jobs have more steps."""

WORST_FIRST: tuple[Basis, ...] = tuple(reversed(Basis))


def weakest(bases: Sequence[Basis]) -> Basis:
    """The worst of *bases*, of which there is at least one."""
    return min(bases, key=WORST_FIRST.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Seconds to the end of a job that has so many steps to do, its decode included."""

    at: Mapping[int, float]
    """By dop."""
    by_dop: tuple[tuple[int, float, float], ...]
    """Each legal dop, ascending, with the seconds to the end and those of one step."""
    work_s: float
    """At dop 1: GPU-seconds."""
    fastest_s: float
    """At the dop of the shortest step."""
    fastest_dop: int
    """That dop."""


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
    _fastest: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _left: dict[int, Left] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        step_s = dict(zip(self.dops, self.step_s, strict=True))
        ends = range(1, len(self.dops) + 1)
        fastest = tuple(min(self.dops[:end], key=step_s.__getitem__) for end in ends)
        object.__setattr__(self, "_step_s", step_s)
        object.__setattr__(self, "_fastest", fastest)
        object.__setattr__(self, "fastest_s", step_s[self.fastest_dop])

    def at(self, dop: int) -> float:
        """Seconds of a step at *dop*, one of ``dops``."""
        return self._step_s[dop]

    def left(self, steps: int) -> Left:
        """What a job with so many *steps* to do needs: remembered, as plans ask over and over."""
        found = self._left.get(steps)
        if found is None:
            if len(self._left) >= _KEPT:
                self._left.clear()
            at = {dop: steps * step_s + self.decode_s for dop, step_s in self._step_s.items()}
            by_dop = tuple(zip(self.dops, at.values(), self.step_s, strict=True))
            found = Left(
                by_dop=by_dop,
                at=at,
                work_s=at[1],
                fastest_s=at[self.fastest_dop],
                fastest_dop=self.fastest_dop,
            )
            self._left[steps] = found
        return found

    def widest(self, workers: int) -> int:
        """The largest legal dop that *workers* suffice for; they are at least 1."""
        return self.dops[bisect_right(self.dops, workers) - 1]

    def fastest(self, workers: int) -> int:
        """The dop of the shortest step that *workers*, at least 1, suffice for.

        Of equal ones the narrowest.
        """
        return self._fastest[bisect_right(self.dops, workers) - 1]

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
