"""The supervisor: one process with one thread that starts, watches and stops all the others.

Started by ``cluster`` as ``python -m ddit_batch.embedded.supervisor --home H --plan JSON``.

Rule 1: it holds the home's supervisor lock for its life. Whoever wants to know whether a cluster
runs looks at that lock, and then at the state that the supervisor publishes.

Rule 2: its children die with it, however it dies; see ``process``.

Rule 3: a child that ends is started again, unless its exit code says that it was asked to leave.
What was lost with it is the scheduler's matter, which finds it in Postgres.

It knows neither jobs nor Celery.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from ddit_batch.config import load_settings
from ddit_batch.embedded.home import ClusterState, Home, publish
from ddit_batch.embedded.lock import hold, holder
from ddit_batch.embedded.plan import Addresses, ClusterPlan, planned_services
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.embedded.process import Child, Service
from ddit_batch.embedded.valkey import running_valkey
from ddit_batch.errors import DditError, ServiceError
from ddit_batch.exit_codes import DRAINED

logger = logging.getLogger(__name__)

_WATCH_S = 0.1
_HURRY_S = 1.0
"""What is left of a stop's patience after a second signal."""

ServicesOf = Callable[[Home, ClusterPlan, Addresses], tuple[Service, ...]]
"""Makes the children of a plan; tests give their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When a child that keeps ending is started again: at once, then after 0.5, 1, 2 ... 30 s."""

    first_s = 0.5
    longest_s = 30.0
    healthy_s = 30.0
    """A child that ran for this long ended for a new reason: the count starts again."""

    started_at_s: float
    failures: int = 0
    restart_at_s: float | None = None
    """None while it runs."""

    def ended(self, now_s: float) -> Backoff:
        """The child was seen ended."""
        is_new_reason = self.restart_at_s is None and now_s - self.started_at_s >= self.healthy_s
        failures = 1 if is_new_reason else self.failures + 1
        doublings = min(failures - 2, 10)
        delay_s = 0.0 if failures == 1 else min(self.longest_s, self.first_s * 2.0**doublings)
        return replace(self, failures=failures, restart_at_s=now_s + delay_s)

    def started(self, now_s: float) -> Backoff:
        """The child was started again."""
        return replace(self, started_at_s=now_s, restart_at_s=None)


@dataclass(slots=True)
class Supervisor:
    """The children, in the order of starting, and what is said about them."""

    home: Home
    state: ClusterState
    children: list[Child] = field(default_factory=list)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    signals: int = 0
    """How many requests to stop have come."""
    is_starting: bool = True

    def on_signal(self, *_: object) -> None:
        """Ask for a stop; the second time, for a quick one. While starting, stop where we are."""
        self.signals += 1
        if self.is_starting and self.signals == 1:
            raise SystemExit(0)

    def publish(self, *, ready: bool) -> None:
        """Tell the world who runs. A full disk is no reason to take everything down."""
        pids = {child.service.name: child.process.pid for child in self.children if child.process}
        self.state = replace(self.state, services=pids, ready=ready)
        try:
            publish(self.home, self.state)
        except OSError as exc:
            extra = {"action": "state_not_published"}
            logger.warning("cannot write the cluster's state: %s", exc, extra=extra)

    def adopt(self, child: Child) -> None:
        """Watch a child that was just started."""
        self.children.append(child)
        self.backoffs[child.service.name] = Backoff(started_at_s=time.monotonic())
        name, pid = child.service.name, child.process.pid if child.process else None
        extra = {"action": "service_started", "service": name, "pid": pid}
        logger.info("%s started as process %s", name, pid, extra=extra)
        self.publish(ready=False)

    def watch(self) -> None:
        """Start again what ends, until asked to stop."""
        while not self.signals:
            for child in tuple(self.children):
                self.tend(child, time.monotonic())
            time.sleep(_WATCH_S)

    def tend(self, child: Child, now_s: float) -> None:
        """Start one child again if it has ended and its time has come."""
        if child.is_alive():
            return
        name = child.service.name
        if child.process and child.process.returncode == DRAINED:
            self.children.remove(child)
            ids = {"action": "service_drained", "service": name}
            logger.info("%s was asked to leave and has left", name, extra=ids)
            self.publish(ready=True)
            return
        backoff = self.backoffs[name]
        if backoff.restart_at_s is None:
            backoff = backoff.ended(now_s)
            code = child.process.returncode if child.process else None
            extra = {"action": "service_ended", "service": name, "exit_code": code}
            logger.warning("%s ended with exit code %s, see its log", name, code, extra=extra)
        if backoff.restart_at_s is not None and backoff.restart_at_s <= now_s:
            try:
                child.start()
            except (OSError, subprocess.SubprocessError) as exc:  # or its old lock is still held
                backoff = backoff.ended(now_s)
                extra = {"action": "service_start_failed", "service": name}
                logger.warning("%s could not be started: %s", name, exc, extra=extra)
            else:
                backoff = backoff.started(now_s)
                restarts = {**self.state.restarts, name: self.state.restarts.get(name, 0) + 1}
                self.state = replace(self.state, restarts=restarts)
                self.publish(ready=True)
        self.backoffs[name] = backoff

    def stop(self, children: Iterable[Child]) -> None:
        """Stop *children* in their order: those of one number together."""
        by_order = sorted(children, key=lambda child: child.service.stop_order)
        for _, together in groupby(by_order, key=lambda child: child.service.stop_order):
            self._stop_together(list(together))

    def _stop_together(self, children: Sequence[Child]) -> None:
        since_s = time.monotonic()
        waiting = [child for child in children if child.is_alive()]
        for child in waiting:
            child.signal(child.service.stop_signal)
        while waiting:
            time.sleep(0.02)
            is_hurried = self.signals > 1
            passed_s = time.monotonic() - since_s
            for child in waiting:
                if passed_s > (_HURRY_S if is_hurried else child.service.grace_s):
                    child.kill()
            waiting = [child for child in waiting if child.is_alive()]


def supervise(
    home: Home,
    plan: ClusterPlan,
    *,
    migrate: Callable[[str], None] | None = None,
    services_of: ServicesOf = planned_services,
) -> None:
    """Run the cluster *plan* in *home* until SIGTERM or SIGINT. Call it from the main thread.

    Raises:
        ServiceError: Another supervisor runs here, or something did not start.
        SystemExit: It was asked to stop while it was starting.
    """
    home.create()
    with ExitStack() as stack:
        try:
            # not at once: whoever looks whether the lock is held, holds it for an instant
            stack.enter_context(hold(home.supervisor_lock, timeout_s=1.0))
        except BlockingIOError as exc:
            raise already_running(home) from exc
        supervisor = Supervisor(home, _no_state(home))
        supervisor.publish(ready=False)
        stack.callback(home.cluster_file.unlink, missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            stack.callback(signal.signal, number, signal.signal(number, supervisor.on_signal))
        try:
            _start(supervisor, stack, plan, migrate or _migrate, services_of)
        finally:
            supervisor.is_starting = False
        supervisor.watch()
        supervisor.publish(ready=False)


def already_running(home: Home) -> ServiceError:
    """The error for whoever comes second."""
    pid = holder(home.supervisor_lock)
    return ServiceError(
        f"{home.path}: a cluster runs here already (process {pid}): "
        "stop it with `ddit down`, or choose another folder with --home"
    )


def _no_state(home: Home) -> ClusterState:
    return ClusterState(
        supervisor_pid=os.getpid(),
        database_url="",
        broker_url="",
        artifacts_url=str(home.store),
        services={},
        restarts={},
    )


def _start(
    supervisor: Supervisor,
    stack: ExitStack,
    plan: ClusterPlan,
    migrate: Callable[[str], None],
    services_of: ServicesOf,
) -> None:
    """Start everything in order; *stack* stops it in reverse."""
    home = supervisor.home
    at = _deployed() if plan.is_deployed else _embedded(supervisor, stack, migrate)
    own = [Child(service) for service in services_of(home, plan, at)]
    stack.callback(supervisor.stop, own)
    for child in own:
        child.start()
        supervisor.adopt(child)
    flower_url = next((child.service.url for child in own if child.service.url), None)
    supervisor.state = replace(supervisor.state, flower_url=flower_url)
    supervisor.publish(ready=True)


def _embedded(
    supervisor: Supervisor, stack: ExitStack, migrate: Callable[[str], None]
) -> Addresses:
    """Start Postgres and Valkey."""
    home = supervisor.home
    postgres = stack.enter_context(running_postgres(home))
    supervisor.state = replace(supervisor.state, database_url=postgres.service.url)
    supervisor.adopt(postgres)
    migrate(postgres.service.url)
    valkey = stack.enter_context(running_valkey(home))
    supervisor.state = replace(supervisor.state, broker_url=valkey.service.url)
    supervisor.adopt(valkey)
    return Addresses(
        database_url=postgres.service.url,
        broker_url=valkey.service.url,
        artifacts_url=str(home.store),
        flower_port=_free_port(),
    )


def _deployed() -> Addresses:
    """Where the environment says that they are. Their passwords go into no file of ours."""
    settings = load_settings()
    return Addresses(
        database_url=settings.database_url.get_secret_value(),
        broker_url=settings.broker_url.get_secret_value(),
        artifacts_url=settings.artifacts_url,
        flower_port=0,
    )


def _free_port() -> int:
    """A port that is free on the loopback now, and most likely still when Flower takes it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _migrate(database_url: str) -> None:
    from ddit_batch.db import migrate  # noqa: PLC0415 -- SQL only where it is needed

    migrate.upgrade(database_url)


def main(
    arguments: Sequence[str] | None = None,
    *,
    migrate: Callable[[str], None] | None = None,
    services_of: ServicesOf = planned_services,
) -> int:
    """Run :func:`supervise` as a process; what goes wrong is the last thing in its log."""
    parser = argparse.ArgumentParser(prog="ddit_batch.embedded.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--plan", type=ClusterPlan.from_json, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # lists them each time
    try:
        supervise(Home(given.home), given.plan, migrate=migrate, services_of=services_of)
    except DditError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 -- the message is what the user will read
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
