"""The settings that every process of ddit-batch reads, from the environment (``DDIT_*``).

Embedded mode sets them for its children; a deployment sets them in its service files. That is the
whole difference between the two. Passwords travel inside the URLs and are never logged.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ddit_batch.errors import ConfigError


class Settings(BaseSettings):
    """Where things are, and how patient to be. Durations are seconds."""

    model_config = SettingsConfigDict(env_prefix="DDIT_", frozen=True, extra="ignore")

    # where things are
    database_url: SecretStr = SecretStr("")
    """Postgres, as SQLAlchemy writes it: ``postgresql+psycopg://user:password@host/ddit``."""
    broker_url: SecretStr = SecretStr("")
    """Valkey or Redis: ``redis://:password@host:6379/0`` or ``redis+socket:///path/to.sock``."""
    artifacts_url: str = ""
    """Handoffs, checkpoints, artifacts: a folder or an fsspec URL such as ``s3://bucket/ddit``."""
    models_folder: Path | None = None
    """The user's own model configs, besides the shipped ones."""
    built_models_folder: Path = Path("~/.cache/ddit-batch/models")
    """Where ``builtin:`` models are built on first use."""

    # who this worker is
    host: str = Field(default_factory=socket.gethostname)
    models: Annotated[tuple[str, ...], NoDecode] = ("tiny-wan",)
    """Comma-separated names, config files or folders of the models that a worker serves."""
    device: str = ""
    """``cpu``, ``cuda:0``, ...; empty means the first GPU if there is one."""
    torch_threads: int = 0
    """CPU threads of one worker's torch; 0 leaves torch's own choice."""

    # how to decide
    policy: str = "static"
    """Which of ``ddit_batch/policy/`` places jobs on workers."""

    # patience
    lease_s: float = 3.0
    """A worker whose lease was not renewed for this long is lost, on the database's clock."""
    heartbeat_s: float = 0.5
    """How often a worker renews its lease."""
    tick_s: float = 0.25
    """How long the scheduler sleeps when nothing wakes it."""
    reconcile_s: float = 0.5
    """How often the scheduler compares the broker's queues with the database."""
    drain_s: float = 20.0
    """How long a stopping worker may take to checkpoint and give its job back."""

    # how much at once
    look_ahead: int = 8
    """Jobs encoded, or on their way to it, ahead of each DiT worker's next free moment."""
    decode_backlog: int = 16
    """No new DiT starts while this many jobs wait for a VAE worker."""
    checkpoint_every_steps: int = 5
    max_failures: int = 3
    """Attempts with a cause of their own after which a job fails."""
    max_worker_losses: int = 5
    """Lost workers after which a job is held to be what kills them, and fails."""

    @field_validator("models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


def load_settings(**given: object) -> Settings:
    """The settings of this process; *given* ones win over the environment.

    Raises:
        ConfigError: A variable has a value of the wrong type; the message names it.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic validates
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "DDIT_" + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"{name}: {first['msg']} (found {first['input']!r})") from exc


def require(settings: Settings, *names: str) -> None:
    """Check that the settings *names* are set.

    Raises:
        ConfigError: One is empty; the message says how to set it.
    """
    for name in names:
        value = getattr(settings, name)
        if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ConfigError(
                f"DDIT_{name.upper()} is not set: set it, or use `ddit run` or `ddit up`, "
                "which bring their own services"
            )
