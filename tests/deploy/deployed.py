"""The services of ``compose.yaml`` as processes of this machine, without Docker.

Each runs the very words of its command in the very environment of its container; only addresses
and folders are those of this machine. What containers give besides, such as users, GPUs and
restarts, is not here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import psycopg
import redis
from click.testing import CliRunner, Result
from compose_model import Compose

from ddit_batch.cli import main
from ddit_batch.embedded import postgres, valkey
from ddit_batch.embedded.process import spawn, stop, tail

LOOPBACK = "127.0.0.1"
DDIT = (sys.executable, "-m", "ddit_batch.cli")
KEPT_VARIABLES = ("PATH", "LANG")


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.create_server((LOOPBACK, 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def wait_until(holds: Callable[[], object], what: str, *, within_s: float = 90.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {within_s:g} s: {what}"
        time.sleep(0.1)


@dataclass(slots=True)
class Deployment:
    """The processes, by name, and where they find each other."""

    compose: Compose
    folder: Path
    postgres_port: int = field(default_factory=free_port)
    valkey_port: int = field(default_factory=free_port)
    flower_port: int = field(default_factory=free_port)
    metrics_ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def log(self, name: str) -> Path:
        """The log of one process."""
        return self.folder / f"{name}.log"

    def logs(self) -> str:
        """All logs, one after another."""
        return "\n".join(file.read_text("utf-8") for file in sorted(self.folder.glob("*.log")))

    def local(self, text: str, *, scheduler: int = 0) -> str:
        """*text* with the addresses and folders of this machine."""
        there_and_here = {
            "@postgres/": f"@{LOOPBACK}:{self.postgres_port}/",
            "@valkey:6379/": f"@{LOOPBACK}:{self.valkey_port}/",
            "0.0.0.0:9464": f"{LOOPBACK}:{self.metrics_ports[scheduler]}",
            "0.0.0.0": LOOPBACK,
            "5555": str(self.flower_port),
            "/artifacts": str(self.folder / "artifacts"),
        }
        for there, here in there_and_here.items():
            text = text.replace(there, here)
        return text

    def environment(self, service: str, *, scheduler: int = 0) -> dict[str, str]:
        """What the service's container would have, and what every process needs."""
        given = self.compose.services[service].environment
        here = {key: self.local(value, scheduler=scheduler) for key, value in given.items()}
        kept = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ}
        return {**kept, "HOME": str(self.folder), "OMP_NUM_THREADS": "1", **here}

    def start(self, service: str, *, scheduler: int = 0) -> None:
        """Start one of our services."""
        words = [self.local(word) for word in self.compose.services[service].command]
        name = f"{service}-{scheduler}" if service == "scheduler" else service
        self._spawn(name, [*DDIT, *words], self.environment(service, scheduler=scheduler))

    def start_postgres(self) -> None:
        """The embedded server with the image's user, password and database, on TCP."""
        environment = self.compose.services["postgres"].environment
        user, data = environment["POSTGRES_USER"], self.folder / "postgres"
        secret = self.folder / "initdb.secret"
        secret.write_text(environment["POSTGRES_PASSWORD"])
        binaries, as_user = postgres._binaries(), postgres._as_user()
        made = ["-D", str(data), "-U", user, "-A", "scram-sha-256", "--pwfile", str(secret)]
        subprocess.run([*as_user, str(binaries / "initdb"), *made], check=True, capture_output=True)
        secret.unlink()
        where = ["-D", str(data), "-h", LOOPBACK, "-p", str(self.postgres_port), "-k", ""]
        self._spawn("postgres", [*as_user, str(binaries / "postgres"), *where], os.environ)
        wait_until(self._has_database, "Postgres answers")

    def _has_database(self) -> bool:
        environment = self.compose.services["postgres"].environment
        try:
            with psycopg.connect(
                host=LOOPBACK,
                port=self.postgres_port,
                user=environment["POSTGRES_USER"],
                password=environment["POSTGRES_PASSWORD"],
                dbname="postgres",
                autocommit=True,
            ) as connection:
                connection.execute(f"CREATE DATABASE {environment['POSTGRES_DB']}".encode())
        except psycopg.OperationalError:
            return False
        return True

    def start_valkey(self) -> None:
        """The embedded server with the config of the file."""
        program, config = self.compose.services["valkey"].command
        (mount,) = self.compose.services["valkey"].configs
        assert (program, config) == ("valkey-server", mount.target)
        local = self.folder / "valkey.conf"
        local.write_text(self.compose.configs[mount.source].content)
        where = ["--bind", LOOPBACK, "--port", str(self.valkey_port), "--dir", str(self.folder)]
        self._spawn("valkey", [str(valkey._binary()), str(local), *where], os.environ)
        wait_until(self._valkey_answers, "Valkey answers")

    def _valkey_answers(self) -> bool:
        password = self.compose.services["valkey"].environment["VALKEY_PASSWORD"]
        try:
            with redis.Redis(LOOPBACK, self.valkey_port, password=password) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    def run(self, service: str, *words: str, text: str = "") -> Result:
        """What ``docker compose run SERVICE WORDS`` or a health check would do, in this process."""
        environment: dict[str, str | None] = {
            variable: None for variable in os.environ if variable.startswith("DDIT_")
        }
        environment |= self.environment(service)
        local = [self.local(word) for word in words]
        return CliRunner().invoke(main, local, input=text, env=environment)

    def _spawn(self, name: str, argv: list[str], environment: Mapping[str, str]) -> None:
        self.processes[name] = spawn(
            argv, env=environment, log=self.log(name), cwd=self.folder, death_signal=SIGKILL
        )

    def stop(self) -> None:
        """Stop what was started, by process id, the last first."""
        signals: dict[str, Signals] = {"postgres": SIGINT}
        for name, process in reversed(self.processes.items()):
            process.send_signal(signals.get(name, SIGTERM)) if process.poll() is None else None
        for name, process in reversed(self.processes.items()):
            stop(process, signals.get(name, SIGTERM), 10.0)

    def assert_running(self) -> None:
        """No process has ended by itself."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended:\n{tail(self.log(name), lines=30)}"
