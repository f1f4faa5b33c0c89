"""From seconds that live steps took to ratios to the profile: robust, and shy of few samples.

Pure. The rule, for one model: each sample is divided by what the profile says for its shape and
dop. The ratio of a level is the median of its samples' ratios, blended in logarithms with the level
above by the number of samples:

    model (all its samples; above it is the profile, 1)  →  shape (all its dops)  →  shape and dop

What was not sampled has the ratio of the nearest level above that was. A stall only ever makes a
step longer, so the median is the lower of two middle samples, and one sample alone moves nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import exp, log
from typing import NamedTuple

from ddit_batch.cost import Live
from ddit_batch.job import Shape
from ddit_batch.model_profile import ModelProfile

HALFWAY_SAMPLES = 3
"""Samples of a level at which it has half the say against the level above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What live steps of one model, shape and dop took."""

    model: str
    shape: Shape
    dop: int
    step_s: tuple[float, ...]
    """Samples, each the seconds per step of some steps in a row; positive, at least one."""
    count: int
    """Samples that were taken in all, of which ``step_s`` are some."""


class _Key(NamedTuple):
    """A level: of a model, of a shape (``dop`` is None), or of a shape and dop."""

    model: str
    shape: Shape | None = None
    dop: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Seconds that live steps take by seconds of the profile, for the levels that were sampled."""

    by_level: Mapping[_Key, float]

    def at(self, model: str, shape: Shape, dop: int) -> tuple[float, Live]:
        """The ratio for a step, and whether it was observed or carried over."""
        if not self.by_level:
            return 1.0, Live.NONE
        own = self.by_level.get(_Key(model, shape, dop))
        if own is not None:
            return own, Live.OBSERVED
        for level in (_Key(model, shape), _Key(model)):
            above = self.by_level.get(level)
            if above is not None:
                return above, Live.CARRIED
        return 1.0, Live.NONE


NO_RATIOS = Ratios(by_level={})


@dataclass(slots=True)
class _Samples:
    ratios: list[float]
    count: int = 0


def ratios_of(
    observations: Iterable[Observation], profile_of: Callable[[str], ModelProfile]
) -> Ratios:
    """The ratios of *observations* to what the profiles say; their order does not matter.

    Steps at a dop that the profile does not have are left out: there is nothing to compare with.
    """
    pooled: dict[_Key, _Samples] = defaultdict(lambda: _Samples([]))
    for seen in observations:
        profile = profile_of(seen.model)
        if seen.dop not in profile.dops(seen.shape):
            continue
        expected_s, _ = profile.step(seen.shape, seen.dop)
        ratios = [seconds / expected_s for seconds in seen.step_s]
        for level in (
            _Key(seen.model),
            _Key(seen.model, seen.shape),
            _Key(seen.model, seen.shape, seen.dop),
        ):
            pooled[level].ratios += ratios
            pooled[level].count += max(seen.count, len(ratios))
    by_level: dict[_Key, float] = {}
    for (
        level,
        samples,
    ) in pooled.items():  # in the order of their making: each after the one above it
        above = by_level.get(_above(level), 1.0)
        trusts_above = level.shape is not None or profile_of(level.model).is_measured
        by_level[level] = _blended(above, samples, trusts_above=trusts_above)
    return Ratios(by_level=by_level)


def _above(level: _Key) -> _Key:
    return _Key(level.model, level.shape if level.dop is not None else None)


def _blended(above: float, samples: _Samples, *, trusts_above: bool) -> float:
    """Between *above* and the median of *samples*: nearer to the median the more there are.

    An assumed profile is worth less than a single sample.
    """
    ordered = sorted(samples.ratios)
    median = ordered[(len(ordered) - 1) // 2]
    if not trusts_above:
        return median
    others = samples.count - 1
    weight = others / (others + HALFWAY_SAMPLES - 1)
    return exp((1.0 - weight) * log(above) + weight * log(median))
