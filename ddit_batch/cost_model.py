"""What a job costs: seconds by model, shape and dop. Data and arithmetic, nothing else.

Pure: a profile is read elsewhere (``profile.py``). Policies, the simulator and the estimates that
users see all ask the same ``CostModel``, so they cannot disagree. Where to read next: ``cost.py``
(the answer), ``model_profile.py`` (where it comes from), ``refinement.py`` (what live steps add).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ddit_batch.cost import Basis, Cost, Live, fastest_dop, optimal_dop, weakest
from ddit_batch.cost_curve import TokenGeometry
from ddit_batch.job import Shape
from ddit_batch.model_profile import LINEAR, ModelProfile
from ddit_batch.refinement import NO_RATIOS, Observation, Ratios, ratios_of

__all__ = ["Basis", "Cost", "CostModel", "Live", "Observation"]

_CACHED = 65_536
"""Costs that are kept at most: more shapes than any workload has, at about a kilobyte each, and as
much again for each number of steps that jobs of the shape had left."""

_A_SHAPE = Shape(480, 832, 81)
UNKNOWN = ModelProfile(
    name="unknown",
    models=("*",),
    heads=None,
    geometry=TokenGeometry(),
    steps=50,
    step_s={1: {_A_SHAPE: 3.3}},
    is_measured=False,
    lone_exponent=LINEAR,
    encode_s=0.5,
    encode_basis=Basis.ASSUMED,
    decode_s={_A_SHAPE: 2.4},
    decode_is_measured=False,
)
"""A model without a profile: 0.1 ms of a step for each token, within a factor of ten of the shipped
profiles (0.04 ms for Open-Sora 1.2 on H800, 1 ms for HunyuanVideo on L20), decoding as Open-Sora's
on H800 for its pixels. So that there is an answer before the first live step says better; no dop
but 1, because nothing is known of how it scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """The costs of all jobs. The same question always has the same answer, remembered inside."""

    profiles: tuple[ModelProfile, ...] = ()
    """Of those that speak for a model the first one counts."""
    table: Mapping[tuple[str, Shape], Cost] = field(default_factory=dict)
    """Costs that stand as they are, whatever the profiles say."""
    max_dop: int | None = None
    """No legal dop is larger; None sets no limit."""
    unpadded: frozenset[str] = frozenset()
    """Models whose backend does not pad: a dop that does not divide the tokens is not legal."""
    heads: Mapping[str, int] = field(default_factory=dict)
    """Attention heads by model, where they are known better than from its profile."""
    is_fixed: bool = False
    """Live steps change nothing."""
    unknown: ModelProfile = UNKNOWN
    """What is assumed of a model that no profile speaks for."""
    ratios: Ratios = NO_RATIOS
    """What live steps took, by what the profiles say."""
    _costs: dict[tuple[str, Shape], Cost] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def cost(self, model: str, shape: Shape) -> Cost:
        """What a job of *model* and *shape* costs."""
        key = (model, shape)
        found = self._costs.get(key)
        if found is None:
            if len(self._costs) >= _CACHED:
                self._costs.clear()
            found = self._costs[key] = self.table.get(key) or self._made(model, shape)
        return found

    def shapes(self, model: str) -> tuple[Shape, ...]:
        """The shapes of *model* that were measured, or stand in ``table``."""
        given = {shape for name, shape in self.table if name == model}
        profile = self.profile_of(model)
        return tuple(sorted(given.union(() if profile is self.unknown else profile.video_shapes)))

    def profile_of(self, model: str) -> ModelProfile:
        """The profile that *model*'s costs come from; ``unknown`` if none speaks for it."""
        speaking = (profile for profile in self.profiles if profile.speaks_for(model))
        return next(speaking, self.unknown)

    def refined(self, observations: Iterable[Observation]) -> CostModel:
        """This model with what live steps took: *observations* are all that count from now on.

        Those of an earlier refinement are forgotten, so refining with the same observations again
        changes nothing. A fixed model stays as it is. See ``refinement.py`` for the rule.
        """
        if self.is_fixed:
            return self
        ratios = ratios_of(observations, self.profile_of)
        return self if ratios == self.ratios else replace(self, ratios=ratios)

    def _made(self, model: str, shape: Shape) -> Cost:
        profile = self.profile_of(model)
        dops = profile.dops(
            shape,
            heads=self.heads.get(model),
            max_dop=self.max_dop,
            pads=model not in self.unpadded,
        )
        steps = [profile.step(shape, dop) for dop in dops]
        ratios = [self.ratios.at(model, shape, dop) for dop in dops]
        step_s = {
            dop: seconds * ratio
            for dop, (seconds, _), (ratio, _) in zip(dops, steps, ratios, strict=True)
        }
        bases = tuple(basis for _, basis in steps)
        decode_s, decode_basis = profile.decode(shape)
        return Cost(
            dops=dops,
            step_s=tuple(step_s.values()),
            encode_s=profile.encode_s,
            decode_s=decode_s,
            optimal_dop=optimal_dop(step_s),
            fastest_dop=fastest_dop(step_s),
            basis=weakest(bases),
            bases=bases,
            live=tuple(live for _, live in ratios),
            encode_basis=profile.encode_basis,
            decode_basis=decode_basis,
        )
