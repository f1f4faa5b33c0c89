"""The settings that every process of ddit-batch reads, from the environment (``DDIT_*``).

Embedded mode sets them for its children; a deployment sets them in its service files. That is the
whole difference between the two. Passwords travel inside the URLs and are never logged.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ddit_batch.environment import PREFIX, checked_url, variable
from ddit_batch.errors import ConfigError


class LogFormat(StrEnum):
    """How a line of a log looks."""

    TEXT = "text"
    """A sentence with ``key=value`` behind it."""
    JSON = "json"
    """An object with the same as fields."""


class Settings(BaseSettings):
    """Where things are, and how patient to be. Durations are seconds.

    The docstring of a field is its description in ``docs/deploy.md``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be a password
    )

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
    """The name of this machine, which must be its own: names of workers end with it."""
    node: str = ""
    """The node that this worker is on: workers of one node denoise a video together, those of two
    never do. Empty: the host is one node."""
    models: Annotated[tuple[str, ...], NoDecode] = ("shapes",)
    """Comma-separated names, config files or folders of the models that a worker serves."""
    device: str = ""
    """``cpu``, ``cuda:0``, ...; empty means the first GPU if there is one."""
    torch_threads: int = 0
    """CPU threads of one worker's torch; 0 leaves torch's own choice."""

    # how to decide
    policy: str = "elastic"
    """Which of ``ddit_batch/policy/`` places jobs on workers, with its options (``static:dop=2``):
    ``elastic``, ``ddit``, ``dp``, ``partitioned`` or ``static`` (first come first served)."""
    profiles: Annotated[tuple[str, ...], NoDecode] = ()
    """Comma-separated names or files of profiles (``docs/cost-model.md``): what a step costs. For a
    model that several speak for, the first counts; the shipped ones come last."""
    profile_fixed: bool = False
    """Believe the profiles alone, whatever live steps take: ``true`` makes decisions repeatable."""
    decisions_per_s: float = Field(default=1.0, ge=0.0)
    """How many decisions a second go on record at most, for `ddit explain`; 0 records none."""

    # patience
    lease_s: float = 3.0
    """A worker whose lease was not renewed for this long is lost, on the database's clock."""
    heartbeat_s: float = 0.5
    """How often a worker renews its lease."""
    tick_s: float = 0.25
    """How long the scheduler sleeps when nothing wakes it."""
    reconcile_s: float = 0.5
    """How often the scheduler compares the broker's queues with the database."""
    group_timeout_s: float = 30.0
    """How long the workers of a group wait for one of them that hangs before they go on without."""
    form_timeout_s: float = 10.0
    """How long a new group may take to form; then its job goes on with the workers that it has."""
    drain_s: float = 20.0
    """How long a stopping worker may take to checkpoint and give its job back."""

    hung_steps: float = 10.0
    """A worker that takes as long as so many steps for one hangs, and its job is taken away ..."""
    hung_after_s: float = 30.0
    """... but never sooner than after this long."""
    phase_timeout_s: float = 1800.0
    """So long may an encode or VAE phase take, and a step if none like it was timed yet."""
    store_patience_s: float = 10.0
    """How long a worker tries again when the artifact store fails, before its attempt ends."""

    # how much at once
    look_ahead: int = 8
    """Jobs encoded, or on their way to it, ahead of each DiT worker's next free moment."""
    decode_backlog: int = 16
    """No new DiT starts while this many jobs wait for a VAE worker."""
    checkpoint_every_steps: int = 5
    """A DiT worker that dies costs its job at most this many denoising steps: a checkpoint is
    written twice as often, and a step that would put more at stake waits for it."""
    max_failures: int = 3
    """Attempts with a cause of their own after which a job fails."""
    max_worker_losses: int = 3
    """Lost workers after which a job is held to be what kills them, and fails."""
    max_timeouts: int = 3
    """Attempts that were taken from a worker that hung, after which a job fails."""
    max_store_failures: int = 5
    """Attempts that the store failed, while it failed nobody else, after which a job fails."""

    # how it is watched
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important lines to log; libraries never go below ``INFO``."""
    log_format: LogFormat = LogFormat.TEXT
    """``text``, a sentence with ``key=value`` behind it, or ``json``, one object a line."""
    metrics_address: str = ""
    """Where a scheduler serves its metrics: ``127.0.0.1:9464``; with port 0 on a free one, which
    its log names; empty: nowhere."""

    @field_validator("models", "profiles", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("database_url", "broker_url")
    @classmethod
    def _check_url(cls, value: SecretStr) -> SecretStr:
        checked_url(value.get_secret_value())
        return value


def load_settings(**given: object) -> Settings:
    """The settings of this process; *given* ones win over the environment.

    Raises:
        ConfigError: A variable has a value of the wrong type; the message names it.
    """
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic validates
    except ValidationError as exc:
        first = exc.errors()[0]
        field = str(first["loc"][0])
        is_secret = Settings.model_fields[field].annotation is SecretStr
        found = "" if is_secret else f" (found {first['input']!r})"
        problem = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{variable(field)}: {problem}{found}") from exc


def require(settings: Settings, *names: str) -> None:
    """Check that the settings *names* are set.

    Raises:
        ConfigError: One is empty; the message says how to set it.
    """
    for name in names:
        value = getattr(settings, name)
        if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
            raise ConfigError(
                f"{variable(name)} is not set: set it, or use `ddit run` or `ddit up`, "
                "which bring their own services"
            )
