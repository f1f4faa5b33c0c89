"""Makes the runtime of a worker process: connections, models, and last of all the lease."""

from __future__ import annotations

import importlib
import os
from typing import Any

from ddit_batch import __version__
from ddit_batch.config import Settings, require
from ddit_batch.control import LiveControl
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.engine import make_engine
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.schema_version import check_schema
from ddit_batch.job import Phase, WorkerName
from ddit_batch.model_config import find_model, known_models
from ddit_batch.phases.device import pick_device, set_threads
from workers.lease import Lease
from workers.runtime import Models, Runtime
from workers.storage import PatientStore
from workers.watchdog import Watchdog


def prepare(phase: Phase, name: WorkerName, settings: Settings) -> Runtime[Any]:
    """Load the part of each served model that *phase* needs, then register as a live worker.

    Raises:
        ConfigError: A setting, the schema or a model is not as it should be.
    """
    require(settings, "database_url", "artifacts_url")
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    check_schema(engine)
    set_threads(settings.torch_threads)
    device = pick_device(settings.device)
    known = known_models(settings.models_folder)
    models = Models(
        tuple(find_model(model, known) for model in settings.models),
        importlib.import_module(f"workers.{phase}").load_part,
        device=device,
        built_models_folder=settings.built_models_folder,
    )
    identity = WorkerIdentity(
        name=name,
        phase=phase,
        host=settings.host,
        node=settings.node or settings.host,
        device=str(device),
        pid=os.getpid(),
        models=tuple(models.configs),
        version=__version__,
    )
    lease = Lease(
        LeaseStore(engine, lease_s=settings.lease_s),
        identity,
        lease_s=settings.lease_s,
        heartbeat_s=settings.heartbeat_s,
    )
    lease.start()
    claims = ClaimStore(engine)
    watchdog = Watchdog(claims, grace_s=settings.drain_s)
    watchdog.start()
    runtime: Runtime[Any] = Runtime(
        settings=settings,
        engine=engine,
        claims=claims,
        lease=lease,
        store=PatientStore(settings.artifacts_url, patience_s=settings.store_patience_s),
        control=LiveControl(settings.broker_url.get_secret_value()),
        models=models,
        watchdog=watchdog,
    )
    if phase is Phase.DIT:
        from workers.dit_runtime import with_groups  # noqa: PLC0415 -- torch.distributed

        return with_groups(runtime, name)
    return runtime
