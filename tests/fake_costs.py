"""Costs for tests: the DDiT paper's shapes, and anything else that scales nearly ideally."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ddit_batch.cost_model import Basis, Cost
from ddit_batch.job import Shape


def a_cost(*step_s: float, optimal: int, dops: tuple[int, ...] = (1, 2, 4, 8)) -> Cost:
    """A job whose steps take *step_s* at the first of *dops*."""
    legal = dops[: len(step_s)]
    return Cost(
        dops=legal,
        step_s=step_s,
        encode_s=0.0,
        decode_s=0.87,
        optimal_dop=optimal,
        fastest_dop=legal[step_s.index(min(step_s))],
        basis=Basis.MEASURED,
    )


P144, P240, P360 = Shape(144, 256, 51), Shape(240, 426, 51), Shape(360, 640, 51)
"""The shapes of the paper's figures; their steps are derived from its table of gains."""

PAPER: Mapping[tuple[str, Shape], Cost] = {
    ("open-sora", P144): a_cost(0.096, 0.096, 0.103, 0.105, optimal=1),
    ("open-sora", P240): a_cost(0.271, 0.149, 0.119, 0.127, optimal=2),
    ("open-sora", P360): a_cost(0.6154, 0.3323, 0.1761, 0.1163, optimal=4),
}
ANY = a_cost(0.8, 0.4, 0.27, 0.2, 0.1, optimal=4, dops=(1, 2, 3, 4, 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCosts:
    """What a policy asks of a cost model, from a table that a test made up."""

    table: Mapping[tuple[str, Shape], Cost] = field(default_factory=lambda: dict(PAPER), repr=False)
    other: Cost = field(default=ANY, repr=False)

    def cost(self, model: str, shape: Shape) -> Cost:
        """What a job of *model* and *shape* costs."""
        return self.table.get((model, shape), self.other)

    def shapes(self, model: str) -> tuple[Shape, ...]:
        """The shapes of *model* in the table."""
        return tuple(shape for name, shape in self.table if name == model)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedCosts(FakeCosts):
    """The same for a driver, whom live steps teach nothing."""

    is_fixed: bool = True


COSTS = FakeCosts()
