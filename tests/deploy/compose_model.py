"""``compose.yaml`` as a value: strict, so that a key that nobody meant is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "compose.yaml"

Duration = Annotated[str, StringConstraints(pattern=r"^\d+(ms|s|m|h)$")]
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?P<kind>:-|:\?)?(?P<rest>[^}]*)\})")


class Part(BaseModel):
    """A mapping of the file; unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Dependency(Part):
    """What must have happened to another service first."""

    condition: Condition


class HealthCheck(Part):
    """How Docker asks whether the service is well."""

    test: tuple[str, ...]
    interval: Duration
    timeout: Duration
    retries: int
    start_period: Duration | None = None
    start_interval: Duration | None = None


class Device(Part):
    """A GPU, by index or UUID."""

    driver: Literal["nvidia"]
    device_ids: tuple[str, ...]
    capabilities: tuple[Literal["gpu"], ...]


class Reservations(Part):
    """What a container gets for itself."""

    devices: tuple[Device, ...]


class Resources(Part):
    """What ``deploy`` says of hardware."""

    reservations: Reservations


class Deploy(Part):
    """How many containers, on what."""

    replicas: int = 1
    resources: Resources | None = None


class ConfigMount(Part):
    """Where a config lies in the container."""

    source: str
    target: str


class Service(Part):
    """One service."""

    image: str
    build: str | None = None
    init: bool = False
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    depends_on: Mapping[str, Dependency] = {}
    restart: Literal["no", "on-failure", "unless-stopped"]
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    configs: tuple[ConfigMount, ...] = ()
    ports: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    stop_grace_period: Duration | None = None
    healthcheck: HealthCheck | None = None
    deploy: Deploy = Deploy()


class InlineConfig(Part):
    """A file that is part of the file."""

    content: str


class Compose(Part):
    """The whole file."""

    name: str
    services: Mapping[str, Service]
    configs: Mapping[str, InlineConfig] = Field(default_factory=dict)
    volumes: Mapping[str, None]

    def ours(self) -> dict[str, Service]:
        """The services that run this project's image."""
        return {name: s for name, s in self.services.items() if s.build is not None}


def raw() -> dict[str, Any]:
    """The file with its anchors followed, without the extensions that only hold them."""
    loaded = yaml.safe_load(FILE.read_text("utf-8"))
    return {key: value for key, value in loaded.items() if not key.startswith("x-")}


def read(variables: Mapping[str, str]) -> Compose:
    """The file as Docker Compose would read it with *variables* in ``.env``.

    Raises:
        KeyError: A variable that the file insists on is not there; the message is the file's.
    """
    return Compose.model_validate(_tuples(filled(raw(), variables)))


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """*value* with the variables of all its strings put in."""
    if isinstance(value, dict):
        return {key: filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, variables) for inner in value]
    return _fill(value, variables) if isinstance(value, str) else value


def _fill(text: str, variables: Mapping[str, str]) -> str:
    def put(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        given = variables.get(match["name"], "")
        if given:
            return given
        if match["kind"] == ":?":
            raise KeyError(f"{match['name']}: {match['rest']}")
        return match["rest"] if match["kind"] == ":-" else ""

    return _VARIABLE.sub(put, text)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def strings(value: Any) -> list[str]:
    """Every string in *value*, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return [value] if isinstance(value, str) else []


def variables_of(text: str) -> list[tuple[str, str, str]]:
    """Name, operator and rest of every variable in *text*."""
    return [(m["name"], m["kind"] or "", m["rest"]) for m in _VARIABLE.finditer(text) if m["name"]]
