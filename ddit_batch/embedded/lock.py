"""Lock files whose locks end with the processes that hold them, however those end.

An flock belongs to the open file, not to a process id: a child that inherits the file holds the
lock too, and when the last holder is gone the lock is free. So a lock tells whether a service or
any part of it still runs, which no file with a process id in it can.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, *, timeout_s: float = 0.0) -> Iterator[int]:
    """Hold the lock file *path*, which is made if it is missing and never removed.

    Yields the file descriptor, to be inherited by a child that shall go on holding the lock.

    Raises:
        BlockingIOError: After *timeout_s* somebody else still holds it.
    """
    deadline = time.monotonic() + timeout_s
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() >= deadline:
                    problem = "another process still holds the lock"
                    raise BlockingIOError(exc.errno, problem, str(path)) from exc
            time.sleep(0.02)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()
        # closing the file, and not LOCK_UN, which would take the lock from a child as well


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock file *path*. Makes nothing.

    It looks by taking a shared lock for an instant, so whoever calls :func:`hold` should be
    ready to wait that long.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> str:
    """The id of the process that took the lock last, for messages; it may be gone."""
    return path.read_text() or "unknown"
