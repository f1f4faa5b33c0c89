"""One child process: how it starts, how it dies with its parent, how it is stopped.

Rule 1: a child runs in a session of its own, so that Ctrl-C reaches the parent alone, which then
stops its children in order.

Rule 2: a child dies with its parent, even when the parent is killed with SIGKILL. The kernel ties
this to the *thread* that started the child, so children are started from the main thread only.
This is Linux's ``PR_SET_PDEATHSIG``; elsewhere it is a no-op, and a killed parent leaves orphans.

When to restart a child is the supervisor's matter.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from ddit_batch.embedded.lock import hold
from ddit_batch.errors import ServiceError

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
"""From ``linux/prctl.h``."""
_POLL_S = 0.02
_KILL_S = 10.0
"""How long to wait for a process that got SIGKILL; a driver can hold it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a child is to run, as data."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    stop_signal: Signals = SIGTERM
    grace_s: float = 5.0
    """How long it may take to stop before it is killed."""
    stop_order: int = 0
    """Services with the same number stop together, the lowest number first."""
    death_signal: Signals = SIGKILL
    """What it gets when its parent dies."""
    url: str = ""
    """Where others reach it; empty if nobody does."""
    lock: Path | None = None
    """A file that the process and all its children keep locked while any of them lives: two copies
    of the service never run on the same data."""
    stale: tuple[Path, ...] = ()
    """What a killed predecessor leaves and what would confuse the next: removed under the lock."""


@dataclass(slots=True)
class Child:
    """A service and the process that runs it now, or ran it last."""

    service: Service
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, lock_timeout_s: float = 0.0) -> None:
        """Start the service's process.

        Raises:
            BlockingIOError: Another process still holds the service's lock.
            OSError: The system cannot start it.
        """
        service = self.service
        lock = hold(service.lock, timeout_s=lock_timeout_s) if service.lock else nullcontext(None)
        with lock as descriptor:
            for path in service.stale:
                path.unlink(missing_ok=True)
            self.process = spawn(
                service.argv,
                env=service.env,
                log=service.log,
                death_signal=service.death_signal,
                pass_fds=() if descriptor is None else (descriptor,),
            )

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and not has_ended(self.process)

    def signal(self, number: Signals) -> None:
        """Send its process a signal, if one runs."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """Kill its process, if one runs. One that does not even die is left behind."""
        if self.process is not None and not kill(self.process):
            self.process = None

    def stop(self) -> None:
        """Stop its process, if one runs."""
        if self.process is not None:
            stop(self.process, self.service.stop_signal, self.service.grace_s)


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    death_signal: Signals | None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start *argv* in a new session, with its output appended to *log*.

    With a *death_signal* call it from the main thread only: the child gets that signal when the
    thread that started it ends.
    """
    assert death_signal is None or threading.current_thread() is threading.main_thread()
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=None if death_signal is None else _die_with_parent(death_signal),  # noqa: PLW1509 -- callers have one thread
        )


def _die_with_parent(death_signal: Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where it is safe
    parent = os.getpid()

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before we asked: nobody will tell us
            os._exit(1)

    return ask_the_kernel


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; the first time that it has, what is left of its group is killed."""
    if process.returncode is None and process.poll() is not None:
        _kill_group(process)
    return process.returncode is not None


def stop(process: subprocess.Popen[bytes], stop_signal: Signals, grace_s: float) -> None:
    """Ask it to stop, and kill it with its group if it has not after *grace_s*."""
    if has_ended(process):
        return
    process.send_signal(stop_signal)
    deadline = time.monotonic() + grace_s
    while not has_ended(process) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    kill(process)


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill it and its group, if it still runs. False if it does not end even so."""
    if has_ended(process):
        return True
    _kill_group(process)
    try:
        process.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        logger.warning(
            "process %d does not end after SIGKILL; it is left behind",
            process.pid,
            extra={"action": "process_left_behind", "pid": process.pid},
        )
        return False
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # PermissionError: macOS says so of a group with nothing but zombies in it
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, SIGKILL)


def wait_ready(child: Child, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
    """Wait until *is_ready*.

    Raises:
        ServiceError: It ended, or was not ready after *timeout_s*; the message has its last words.
    """
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if not child.is_alive():
            code = None if child.process is None else child.process.returncode
            raise service_error(f"{child.service.name} ended with exit code {code}", child.service)
        if time.monotonic() >= deadline:
            raise service_error(f"{child.service.name} not ready in {timeout_s:g} s", child.service)
        time.sleep(_POLL_S)


def service_error(what: str, service: Service) -> ServiceError:
    """The error that *what* happened to *service*, with the end of its log and the log's path."""
    return ServiceError(f"{what}; {service.log} ends with:\n{tail(service.log)}")


def tail(log: Path, *, since_bytes: int = 0, lines: int = 15) -> str:
    """The last *lines* of what *log* holds after its first *since_bytes*."""
    with log.open("rb") as file:
        file.seek(max(since_bytes, log.stat().st_size - 200 * lines))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
