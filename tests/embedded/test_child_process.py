from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddit_batch.embedded.lock import hold, is_held
from ddit_batch.embedded.process import Child, Service, has_ended, spawn, stop, wait_ready
from ddit_batch.errors import ServiceError

Eventually = Callable[..., None]
IsAlive = Callable[[int], bool]


def shell(script: str, log: Path) -> subprocess.Popen[bytes]:
    argv = ("/bin/sh", "-c", script)
    return spawn(argv, env=os.environ, log=log, death_signal=signal.SIGKILL)


def service(tmp_path: Path, script: str) -> Service:
    return Service(
        name="example",
        argv=("/bin/sh", "-c", script),
        env=os.environ,
        log=tmp_path / "log",
        lock=tmp_path / "lock",
        stale=(tmp_path / "stale",),
    )


def test_child_has_its_own_session_and_log(tmp_path: Path, eventually: Eventually) -> None:
    """Ctrl-C does not reach it, and what it says is appended to its log."""
    log = tmp_path / "log"
    log.write_text("before\n")

    process = shell("echo out; echo err >&2; sleep 60", log)

    eventually(lambda: log.read_text() == "before\nout\nerr\n")
    assert os.getsid(process.pid) == process.pid
    stop(process, signal.SIGTERM, 5.0)
    assert process.returncode == -signal.SIGTERM


def test_child_that_ignores_its_signal_is_killed_with_its_group(
    tmp_path: Path, eventually: Eventually, is_alive: IsAlive
) -> None:
    """After its grace, it and whatever it started are gone."""
    log = tmp_path / "log"
    process = shell("trap '' TERM; sleep 60 & echo $!; wait; sleep 60", log)
    eventually(lambda: log.read_text().endswith("\n"))

    stop(process, signal.SIGTERM, 0.1)

    assert process.returncode == -signal.SIGKILL
    eventually(lambda: not is_alive(int(log.read_text())))


def test_what_a_dead_child_started_dies_when_the_death_is_seen(
    tmp_path: Path, eventually: Eventually, is_alive: IsAlive
) -> None:
    """A child that crashes leaves no process behind that holds on to its device."""
    process = shell("sleep 60 & echo $!; exit 3", tmp_path / "log")

    eventually(lambda: has_ended(process))

    assert process.returncode == 3
    grandchild = int((tmp_path / "log").read_text())
    eventually(lambda: not is_alive(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_child_dies_with_a_parent_that_is_killed(
    tmp_path: Path, eventually: Eventually, is_alive: IsAlive
) -> None:
    """SIGKILL to the parent, which can do nothing about it, ends the child too."""
    program = f"""
import os, signal, time
from pathlib import Path
from ddit_batch.embedded.process import spawn
argv = ("sleep", "60")
child = spawn(argv, env=os.environ, log=Path({str(tmp_path / "log")!r}), death_signal=signal.SIGKILL)
print(child.pid, flush=True)
time.sleep(60)
"""  # noqa: E501
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)

        parent.kill()

        eventually(lambda: not is_alive(child), within_s=3.0)


def test_service_holds_its_lock_as_long_as_any_of_its_processes(
    tmp_path: Path, eventually: Eventually
) -> None:
    """The lock belongs to the child, and to what it started, not to who started it."""
    first = Child(service(tmp_path, "setsid sleep 1 & exit"))
    first.start()
    assert first.process is not None
    first.process.wait()

    with pytest.raises(BlockingIOError):
        Child(first.service).start()

    eventually(lambda: not is_held(tmp_path / "lock"), within_s=3.0)


def test_stale_files_are_removed_only_under_the_lock(tmp_path: Path) -> None:
    """What a predecessor left goes when it is surely gone, and not before."""
    (tmp_path / "stale").touch()
    child = Child(service(tmp_path, "sleep 60"))

    with hold(tmp_path / "lock"), pytest.raises(BlockingIOError):
        child.start()
    assert (tmp_path / "stale").exists()

    child.start()
    assert not (tmp_path / "stale").exists()
    child.stop()


def test_service_that_ends_while_starting_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """The error has the exit code, the log's path and its end."""
    child = Child(service(tmp_path, "echo no space on this disk; exit 4"))
    child.start()

    with pytest.raises(ServiceError) as raised:
        wait_ready(child, lambda: False, timeout_s=5.0)

    message = str(raised.value)
    assert "exit code 4" in message
    assert str(tmp_path / "log") in message
    assert message.endswith("no space on this disk")
