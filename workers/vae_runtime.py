"""What a VAE worker has beside the rest: the deliveries to users, its own and what others left."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ddit_batch.db.deliveries import DeliveryStore
from ddit_batch.phases.models.base import Decoder
from workers.app import PhaseTask
from workers.deliveries import Deliverer
from workers.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeRuntime(Runtime[Decoder]):
    """Handed to every attempt at a VAE phase."""

    deliverer: Deliverer

    def close(self) -> None:
        """End in order."""
        self.deliverer.stop()
        super(VaeRuntime, self).close()


class VaeTask(PhaseTask[Decoder]):
    """A task of a VAE worker."""

    abstract = True
    runtime: VaeRuntime


def with_deliveries(runtime: Runtime[Decoder]) -> VaeRuntime:
    """*runtime* with what it needs to deliver, looking for what is due from now on."""
    deliverer = Deliverer(DeliveryStore(runtime.engine), runtime.store)
    deliverer.start()
    shared = {field.name: getattr(runtime, field.name) for field in fields(runtime)}
    return VaeRuntime(**shared, deliverer=deliverer)
