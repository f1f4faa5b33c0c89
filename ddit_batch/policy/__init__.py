"""Policies: which workers denoise which job. One small pure file each, chosen by a spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ddit_batch.cost_model import CostModel
from ddit_batch.errors import ConfigError
from ddit_batch.policy.base import Policy
from ddit_batch.policy.ddit import Ddit, Decode, Order, Promotion
from ddit_batch.policy.dp import Dp, Groups
from ddit_batch.policy.elastic import Elastic
from ddit_batch.policy.partitioned import Partitioned
from ddit_batch.policy.spec import (
    Option,
    numbers_or,
    one_of,
    parse,
    read,
    split_specs,
    whole_number,
)
from ddit_batch.policy.static import Static

__all__ = ["POLICIES", "Policy", "make_policy", "split_specs"]

POLICIES: Mapping[str, tuple[Callable[..., Policy], Mapping[str, Option]]] = {
    "ddit": (
        Ddit,
        {"order": one_of(Order), "promotion": one_of(Promotion), "decode": one_of(Decode)},
    ),
    "dp": (Dp, {"groups": one_of(Groups)}),
    "elastic": (Elastic, {}),
    "partitioned": (
        Partitioned,
        {"sizes": numbers_or("optimal"), "dops": numbers_or("optimal")},
    ),
    "static": (Static, {"dop": whole_number()}),
}
"""Every policy by name, with the options that its spec may have."""


def make_policy(spec: str, costs: CostModel) -> Policy:
    """The policy that a spec names: ``static``, ``static:dop=4``, ``ddit:order=waiting-first``.

    Raises:
        ConfigError: There is no such policy, option or value; the message names those that are.
    """
    name, given = parse(spec)
    if name not in POLICIES:
        raise ConfigError(f"policy {name!r} is unknown: use one of {', '.join(sorted(POLICIES))}")
    kind, options = POLICIES[name]
    return kind(costs=costs, **read(spec, given, options))
