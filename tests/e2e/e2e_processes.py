"""Processes of these tests: the ``ddit`` command, what it leaves behind, and waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

_T = TypeVar("_T")

MARK = "DDIT_TEST_HOME"
"""Variable by which a process is known to belong to a test's home folder."""


def wait_until(holds: Callable[[], _T], what: str, *, within_s: float = 30.0) -> _T:
    """Wait until *holds* gives something true, and return that."""
    deadline = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in {within_s:g} s: {what}"
        time.sleep(0.02)
    return found


def clean_env(home: Path) -> dict[str, str]:
    """This process's environment without our settings, marked for *home*, on the CPU."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("DDIT_")}
    return {**others, MARK: str(home), "DDIT_HOME": str(home), "DDIT_DEVICE": "cpu"}


def ddit(
    home: Path, *words: str, text: str | None = None, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run one ``ddit`` command to its end, with *text* as its standard input."""
    return subprocess.run(
        [command(), *words],
        check=False,
        env=clean_env(home),
        input=text,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def start_ddit(program: Path, home: Path, *words: str, log: Path) -> subprocess.Popen[bytes]:
    """Start ``ddit`` in the folder above *home* as a shell does: alone in a process group.

    It gets two cores whatever the machine has, so that its workers have one thread each.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    env = clean_env(home)
    for name in ("DDIT_HOME", "PYTHONPATH"):
        env.pop(name, None)
    with log.open("ab") as output:
        return subprocess.Popen(
            ["taskset", "--cpu-list", ",".join(map(str, cores)), program, *words],
            cwd=home.parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            # a shell's foreground job hears Ctrl-C, also when these tests were started deaf to it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no threads here
        )


def command() -> Path:
    """The ``ddit`` of this environment."""
    return Path(sys.executable).with_name("ddit")


def processes_of(home: Path) -> list[psutil.Process]:
    """What still runs for *home*, however it was orphaned."""
    return [process for process in psutil.process_iter() if _belongs(process, home)]


def assert_nothing_left(home: Path, *, within_s: float = 2.0) -> None:
    """Nothing runs for *home*, but for a process that has closed everything and is on its way out.

    The supervisor lets go of its lock some milliseconds before it ends.
    """
    wait_until(lambda: not processes_of(home), f"everything in {home} ends", within_s=within_s)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _belongs(process: psutil.Process, home: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Postgres overwrites its environment, but stays in its data folder
        mark = process.environ().get(MARK)
        return mark == str(home) or Path(process.cwd()).is_relative_to(home)
    except psutil.Error:
        return False
