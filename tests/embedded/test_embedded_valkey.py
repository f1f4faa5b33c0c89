from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import redis

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.embedded.process import Child
from ddit_batch.embedded.valkey import running_valkey


def client_of(valkey: Child) -> redis.Redis:
    prefix = "redis+socket://"
    assert valkey.service.url.startswith(prefix)
    return redis.Redis(unix_socket_path=valkey.service.url.removeprefix(prefix))


def test_messages_survive_a_killed_server(tmp_path: Path) -> None:
    """What was sent more than a second ago is there after SIGKILL and a new start."""
    home = Home(tmp_path / "home")
    with running_valkey(home) as valkey:
        with client_of(valkey) as client:
            client.lpush("queue", "message")
        time.sleep(1.2)  # appendfsync everysec
        assert valkey.process is not None
        os.kill(valkey.process.pid, signal.SIGKILL)
        valkey.process.wait()

    with running_valkey(home) as valkey, client_of(valkey) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


def test_server_is_reachable_by_its_owner_only(tmp_path: Path) -> None:
    """It listens on a private socket and on no port, and the socket goes with it."""
    with running_valkey(Home(tmp_path / "home")) as valkey:
        socket = Path(valkey.service.url.removeprefix("redis+socket://"))
        with client_of(valkey) as client:
            assert client.config_get("port") == {"port": "0"}
        assert socket.stat().st_mode & 0o777 == 0o700

    assert not socket.exists()


@pytest.mark.parametrize("name", ["deep/" * 30, "with blank, comma"])
def test_services_run_in_an_awkward_home(home: Home, tmp_path: Path, name: str) -> None:
    """A home deeper than a socket's path may be, or with odd characters, works like any other."""
    awkward = Home(tmp_path / name)
    awkward.create()
    (home.data / "postgres").rename(awkward.data / "postgres")

    with running_postgres(awkward) as postgres, running_valkey(awkward) as valkey:
        with client_of(valkey) as client:
            assert client.ping()
        assert postgres.is_alive()

    assert list(awkward.socket_folder().iterdir()) == []
    awkward.socket_folder().rmdir()
    (awkward.data / "postgres").rename(home.data / "postgres")
