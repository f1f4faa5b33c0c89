"""Policies: which workers denoise which job. One small pure file each, chosen by name."""

from __future__ import annotations

from ddit_batch.errors import ConfigError
from ddit_batch.policy.base import Policy
from ddit_batch.policy.static import Static


def make_policy(name: str) -> Policy:
    """The policy that a setting names, such as ``static``.

    Raises:
        ConfigError: There is none of that name.
    """
    policies: dict[str, Policy] = {"static": Static(dop=1)}
    if name not in policies:
        raise ConfigError(f"policy {name!r} is unknown: use one of {', '.join(sorted(policies))}")
    return policies[name]
