"""A lookout that never looks, for drivers without a database."""

from __future__ import annotations

from dataclasses import dataclass

from fake_costs import COSTS, FakeCosts

from ddit_batch.backlog import Kind
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.snapshot import Snapshot


@dataclass(frozen=True)
class BlindLookout:
    """Knows what steps cost, and nothing else."""

    costs: FakeCosts = COSTS
    policy: Policy = make_policy("static", COSTS)  # noqa: RUF009 -- a frozen value
    kinds: tuple[Kind, ...] = ()

    def refine(self) -> None:
        """The costs stay as they are."""

    def look(self, snapshot: Snapshot) -> None:
        """Not yet time."""

    def completed(self, snapshot: Snapshot) -> Snapshot:
        """There is nothing to add."""
        return snapshot
