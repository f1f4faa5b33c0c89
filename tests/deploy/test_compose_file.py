from __future__ import annotations

import importlib.metadata
import re
from typing import Any

import click
import compose_model
import pytest
from click.testing import CliRunner
from compose_model import ROOT, Compose, Service
from pydantic import ValidationError

from ddit_batch.cli import main, services
from ddit_batch.config import Settings
from ddit_batch.environment import variable
from ddit_batch.job import Phase, WorkerName, queue_of

GIVEN = {
    "POSTGRES_PASSWORD": "postgres-secret",
    "VALKEY_PASSWORD": "valkey-secret",
    "FLOWER_PASSWORD": "flower-secret",
    "DDIT_HOST": "unit",
}
SECRETS = {name for name in GIVEN if name.endswith("_PASSWORD")}
POSTGRES_VARIABLES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
VALKEY_VARIABLES = {"VALKEY_PASSWORD"}  # read by the health check alone

COMPOSE = compose_model.read(GIVEN)
OURS = COMPOSE.ours()
LASTING = {
    name: service
    for name, service in COMPOSE.services.items()
    if service.restart == "unless-stopped"
}
WORKERS = {name: service for name, service in OURS.items() if service.command[0] == "worker"}


def parsed(words: tuple[str, ...]) -> click.Context:
    """What click makes of a command's words, without running it."""
    command: click.Command = main
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        found = command.get_command(click.Context(command), left.pop(0))
        assert found is not None, f"no such command: {' '.join(words)}"
        command = found
    return command.make_context("ddit", left, resilient_parsing="--help" in left)


def test_unknown_key_is_refused() -> None:
    """The model that these tests stand on is strict."""
    broken: dict[str, Any] = {"image": "x", "restart": "no", "comand": ("db",)}

    with pytest.raises(ValidationError, match="comand"):
        Service.model_validate(broken)


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name: str) -> None:
    """Command, options and values exist."""
    parsed(OURS[name].command)


@pytest.mark.parametrize("name", LASTING)
def test_every_long_running_service_has_a_health_check(name: str) -> None:
    """Ours ask the command itself, about the service that runs."""
    service = LASTING[name]

    assert service.healthcheck is not None
    if name in OURS:
        _, program, *words = service.healthcheck.test
        assert program == "ddit"
        assert service.healthcheck.test[0] == "CMD"
        own, asked = parsed(service.command), parsed(tuple(words))
        same = own.params | {"check": True}
        if service.command[0] == "flower":
            same["address"] = asked.params["address"]
        assert asked.params == same
        assert asked.command is own.command


@pytest.mark.parametrize("name", LASTING)
def test_every_dependency_can_be_waited_for(name: str) -> None:
    """Healthy where there is a check, completed where the service ends."""
    for needed, dependency in LASTING[name].depends_on.items():
        service = COMPOSE.services[needed]
        if dependency.condition == "service_healthy":
            assert service.healthcheck is not None
        else:
            assert dependency.condition == "service_completed_successfully"
            assert service.restart in {"no", "on-failure"}


@pytest.mark.parametrize("name", COMPOSE.services)
def test_every_variable_of_a_container_is_read_by_its_program(name: str) -> None:
    """A setting of ours, or a documented one of Postgres, the health check or Flower."""
    from flower.options import options  # noqa: PLC0415 -- defines them when it is imported

    known = {variable(field) for field in Settings.model_fields}
    if name == "postgres":
        known = POSTGRES_VARIABLES
    elif name == "valkey":
        known = VALKEY_VARIABLES
    elif name == "flower":
        known |= {f"FLOWER_{option.upper()}" for option in options}

    assert set(COMPOSE.services[name].environment) <= known


@pytest.mark.parametrize("name", OURS)
def test_settings_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program would accept every value."""
    environment = OURS[name].environment
    for key, value in environment.items():
        monkeypatch.setenv(key, value)

    settings = Settings()

    assert settings.host == GIVEN["DDIT_HOST"]
    assert settings.artifacts_url == "/artifacts"
    assert settings.broker_url.get_secret_value().endswith("@valkey:6379/0")


def queues_of(service: Service, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The queues that a worker's Celery would read."""
    started: list[list[str]] = []
    monkeypatch.setattr(services, "_become_celery", lambda _app, words, _env: started.append(words))
    for key, value in service.environment.items():
        monkeypatch.setenv(key, value)
    result = CliRunner().invoke(main, list(service.command), catch_exceptions=False)
    assert result.exit_code == 0
    (words,) = started
    return set(words[words.index("--queues") + 1].split(","))


def test_workers_read_the_queues_that_the_scheduler_writes_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each phase has a worker, each worker its private queue, and encode and VAE the shared one."""
    found = {name: queues_of(service, monkeypatch) for name, service in WORKERS.items()}

    for name, service in WORKERS.items():
        params = parsed(service.command).params
        phase = Phase(params["phase"])
        own = queue_of(phase, WorkerName(f"{params['name']}@{GIVEN['DDIT_HOST']}"))
        shared = set() if phase is Phase.DIT else {queue_of(phase)}
        assert found[name] == {own} | shared
    assert {parsed(s.command).params["phase"] for s in WORKERS.values()} == set(Phase)


@pytest.mark.parametrize("name", WORKERS)
def test_every_worker_has_a_gpu_of_its_own_choice_and_time_to_stop(name: str) -> None:
    """One GPU by id, and longer to stop than a worker takes to give its job back."""
    service = WORKERS[name]

    assert service.deploy.resources is not None
    (device,) = service.deploy.resources.reservations.devices
    assert len(device.device_ids) == 1
    assert service.stop_grace_period is not None
    assert float(service.stop_grace_period.removesuffix("s")) > 2 * Settings().drain_s


def test_two_schedulers_run() -> None:
    """One leads, the other takes over."""
    assert COMPOSE.services["scheduler"].deploy.replicas == 2


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_secret_must_be_given(secret: str) -> None:
    """Without it, or with an empty one, nothing starts; there is no default."""
    with pytest.raises(KeyError, match=secret):
        compose_model.read({**GIVEN, secret: ""})


def test_secrets_come_from_the_environment_alone() -> None:
    """Every mention insists on a value, and no password stands in the file."""
    texts = compose_model.strings(compose_model.raw())
    mentions = [found for text in texts for found in compose_model.variables_of(text)]

    for name, kind, _ in mentions:
        assert name not in SECRETS or kind == ":?"
    for text in texts:
        assert not re.search(r"://[^\s/@]*:(?!\$\{)[^\s/@]+@", text)
        assert "requirepass" not in text or "requirepass ${VALKEY_PASSWORD:?" in text
    assert {name for name, *_ in mentions} >= SECRETS


def test_secrets_stand_on_no_command_line() -> None:
    """Where every user of the machine could read them."""
    for service in COMPOSE.services.values():
        check = service.healthcheck.test if service.healthcheck else ()
        for word in (*service.command, *check):
            assert not any(GIVEN[secret] in word for secret in SECRETS)


def test_only_the_loopback_is_published() -> None:
    """Others reach this machine's Flower through a tunnel or a proxy, on purpose."""
    ports = [port for service in COMPOSE.services.values() for port in service.ports]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_flower_asks_for_a_password() -> None:
    """It is bound to all interfaces of its container."""
    assert COMPOSE.services["flower"].environment["FLOWER_BASIC_AUTH"] == "ddit:flower-secret"


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_privileges(name: str) -> None:
    """No capabilities, and no way to more."""
    assert OURS[name].cap_drop == ("ALL",)
    assert OURS[name].security_opt == ("no-new-privileges:true",)


def test_every_volume_and_config_that_is_used_is_declared() -> None:
    """And the other way round."""
    sources = {
        volume.partition(":")[0]
        for service in COMPOSE.services.values()
        for volume in service.volumes
    }
    configs = {mount.source for service in COMPOSE.services.values() for mount in service.configs}

    assert sources == set(COMPOSE.volumes)
    assert configs == set(COMPOSE.configs)


def test_example_environment_names_every_variable() -> None:
    """``.env.example`` has them all, the required ones empty, the others with their default."""
    texts = compose_model.strings(compose_model.raw())
    wanted = {
        name: rest if kind == ":-" else ""
        for text in texts
        for name, kind, rest in compose_model.variables_of(text)
    }
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    given = dict(re.findall(r"^(?:# )?([A-Z][A-Z_0-9]*)=(.*)$", "\n".join(lines), re.MULTILINE))

    assert given == wanted
    assert all(f"{name}=" in lines for name, default in wanted.items() if not default)


def test_image_is_built_from_what_is_there() -> None:
    """What the Dockerfile copies exists, and ``.dockerignore`` lets it through and nothing else."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE)
        for word in line.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()

    assert all((ROOT / name).exists() for name in copied)
    assert "*" in ignore
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied


def test_image_runs_as_a_user() -> None:
    """Not as root, and the folders that volumes cover are that user's."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    mounted = {volume.split(":")[1] for service in WORKERS.values() for volume in service.volumes}

    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["ddit"]
    (made,) = re.findall(r"install --directory --owner ddit --group ddit (.*)\n", dockerfile)
    assert set(made.split()) == mounted
    assert 'ENTRYPOINT ["ddit"]' in dockerfile


def test_image_has_the_torch_that_the_package_pins() -> None:
    """Else pip would fetch two."""
    pinned = [
        requirement
        for requirement in importlib.metadata.requires("ddit-batch") or []
        if requirement.startswith("torch==")
    ]
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")

    assert pinned
    assert pinned[0].partition(";")[0].strip() in dockerfile


def test_whole_file_is_understood() -> None:
    """No service is left out of the checks above."""
    assert isinstance(COMPOSE, Compose)
    assert set(OURS) == {
        "migrate",
        "scheduler",
        "encode",
        "dit-0",
        "vae",
        "flower",
        "cli",
    }
    assert set(COMPOSE.services) - set(OURS) == {"postgres", "valkey"}
