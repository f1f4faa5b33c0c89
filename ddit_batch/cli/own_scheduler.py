"""A scheduler for the length of a block, with a policy and costs of the command's own choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import Addresses, ClusterPlan, planned_services
from ddit_batch.embedded.process import Child, Service, service_error

Check = Callable[[], None]
"""To be called while waiting; raises ServiceError when that makes no sense any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderless:
    """Workers that no scheduler leads: a cluster of a plan without one, or a deployment's."""

    home: Home
    """Where the scheduler's log goes."""
    at: Addresses
    models: tuple[str, ...]
    """Names, config files or folders of the models that the workers serve."""

    @contextmanager
    def led_by(self, policy: str, profile: Path) -> Iterator[Check]:
        """Have a scheduler lead that decides by *policy*, with the costs of *profile* alone.

        Yields what to call while waiting for it. Call it from the main thread.
        """
        self.home.create()
        child = Child(self._service(policy, profile))

        def check() -> None:
            if not child.is_alive():
                raise service_error("the scheduler has ended", child.service)

        try:
            child.start()
            yield check
        finally:
            child.stop()

    def _service(self, policy: str, profile: Path) -> Service:
        plan = ClusterPlan(
            dit_workers=0,
            encode_workers=0,
            vae_workers=0,
            schedulers=1,
            models=self.models,
            policy=policy,
            extra_env=(("DDIT_PROFILES", str(profile)), ("DDIT_PROFILE_FIXED", "true")),
        )
        (service,) = planned_services(self.home, plan, self.at)
        return service
