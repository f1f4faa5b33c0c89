"""What a DiT worker has beside the rest: the groups that it forms with other DiT workers."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ddit_batch.control import LiveControl
from ddit_batch.db.plans import PlanStore
from ddit_batch.job import WorkerName
from ddit_batch.phases.models.base import Denoiser
from workers import rendezvous
from workers.app import PhaseTask
from workers.forming import Former, Patience
from workers.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class DitRuntime(Runtime[Denoiser]):
    """Handed to every attempt at a DiT phase, and to followers."""

    plans: PlanStore
    former: Former

    def close(self) -> None:
        """End in order: no group outlives the lease."""
        self.former.stop()
        super(DitRuntime, self).close()


class DitTask(PhaseTask[Denoiser]):
    """A task of a DiT worker."""

    abstract = True
    runtime: DitRuntime


def with_groups(runtime: Runtime[Denoiser], name: WorkerName) -> DitRuntime:
    """*runtime* with what it needs to come into groups, listening for calls from now on."""
    settings = runtime.settings
    broker_url = settings.broker_url.get_secret_value()
    plans = PlanStore(runtime.engine)
    former = Former(
        me=name,
        incarnation=lambda: runtime.lease.incarnation,
        parallelism_of=lambda model: runtime.models.configs[model].parallelism,
        device=runtime.models.device,
        control=LiveControl(broker_url),
        redis=rendezvous.connect(broker_url),
        plans=plans,
        patience=Patience(form_s=settings.form_timeout_s, group_s=settings.group_timeout_s),
    )
    former.start()
    shared = {field.name: getattr(runtime, field.name) for field in fields(runtime)}
    return DitRuntime(**shared, plans=plans, former=former)
