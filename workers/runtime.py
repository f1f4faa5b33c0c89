"""What a worker process holds while it lives: stores, control, lease and loaded models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from sqlalchemy import Engine

from ddit_batch.artifact import ArtifactStore
from ddit_batch.config import Settings
from ddit_batch.control import LiveControl
from ddit_batch.db.claims import ClaimStore
from ddit_batch.errors import ConfigError, OutOfMemory, PhaseError
from ddit_batch.model_config import ModelConfig
from ddit_batch.phases.models.base import ModelFamily
from ddit_batch.phases.models.registry import family_of, resolve_source
from workers.lease import Lease
from workers.watchdog import Watchdog

_Part = TypeVar("_Part")

LoadPart = Callable[[ModelFamily, ModelConfig, str, torch.device], _Part]
"""Loads the part of a model that a phase needs."""


class Models(Generic[_Part]):
    """The parts of the models that this worker serves, loaded when it starts and then kept."""

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        load: LoadPart[_Part],
        *,
        device: torch.device,
        built_models_folder: Path,
    ) -> None:
        self.device = device
        self.configs: dict[str, ModelConfig] = {}
        """Of those that could be loaded."""
        self.problems: dict[str, str] = {}
        """Why the others could not be."""
        self._parts: dict[str, _Part] = {}
        for config in configs:
            try:
                source = resolve_source(config, built_models_folder)
                self._parts[config.name] = load(family_of(config), config, source, device)
            except (ConfigError, OutOfMemory) as exc:
                self.problems[config.name] = str(exc)
            else:
                self.configs[config.name] = config

    def part(self, name: str) -> _Part:
        """The loaded part of model *name*.

        Raises:
            PhaseError: This worker does not serve it.
        """
        if name not in self._parts:
            served = ", ".join(sorted(self._parts))
            raise PhaseError(
                f"model {name!r} is not served by this worker (it serves {served}): "
                "start a worker with it in DDIT_MODELS"
            )
        return self._parts[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime(Generic[_Part]):
    """Handed to every attempt."""

    settings: Settings
    engine: Engine
    claims: ClaimStore
    lease: Lease
    store: ArtifactStore
    control: LiveControl
    models: Models[_Part]
    watchdog: Watchdog
    stop_requested: threading.Event = field(default_factory=threading.Event)
    """Set by SIGTERM: the step loop checkpoints at its next boundary and gives its job back."""
    busy: threading.Lock = field(default_factory=threading.Lock)
    """Held while an attempt runs: the lease must not end before it."""

    def close(self) -> None:
        """End in order: the lease last of what others see."""
        self.watchdog.stop()
        self.lease.stop()
        self.control.close()
