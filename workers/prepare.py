"""Makes the runtime of a worker process: connections, models, and last of all the lease."""

from __future__ import annotations

import importlib
import logging
import os
from typing import Any

import torch

from ddit_batch import __version__
from ddit_batch.config import Settings, require
from ddit_batch.control import LiveControl
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.engine import make_engine
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.model_problems import record_model_problems
from ddit_batch.db.schema_version import check_schema
from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase, WorkerName
from ddit_batch.model_config import find_model, known_models
from ddit_batch.phases.device import pick_device, set_threads
from workers.lease import Lease
from workers.runtime import Models, Runtime
from workers.storage import PatientStore
from workers.watchdog import Watchdog

logger = logging.getLogger(__name__)


def prepare(phase: Phase, name: WorkerName, settings: Settings) -> Runtime[Any]:
    """Load the part of each served model that *phase* needs, then register as a live worker.

    Raises:
        ConfigError: A setting or the schema is not as it should be, or no model can be loaded.
    """
    require(settings, "database_url", "artifacts_url")
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=4)
    check_schema(engine)
    set_threads(settings.torch_threads)
    device = pick_device(settings.device)
    models = _load(phase, device, settings)
    record_model_problems(engine, name, phase, models.problems)
    for model, problem in models.problems.items():
        logger.error("does not serve %s: %s", model, problem, extra={"action": "model_unavailable"})
    if not models.configs:
        raise ConfigError("; ".join(models.problems.values()) or "DDIT_MODELS names no model")
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
    if phase is Phase.VAE:
        from workers.vae_runtime import with_deliveries  # noqa: PLC0415 -- its phase's alone

        return with_deliveries(runtime)
    return runtime


def _load(phase: Phase, device: torch.device, settings: Settings) -> Models[Any]:
    """The models that the settings name, as far as they can be found and loaded."""
    known = known_models(settings.models_folder)
    configs, unknown = [], {}
    for name in settings.models:
        try:
            configs.append(find_model(name, known))
        except ConfigError as exc:
            unknown[name] = str(exc)
    models: Models[Any] = Models(
        configs,
        importlib.import_module(f"workers.{phase}").load_part,
        device=device,
        built_models_folder=settings.built_models_folder,
    )
    models.problems.update(unknown)
    return models
