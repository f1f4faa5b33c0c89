"""What the commands call: start a cluster in a home folder, stop it, see whether it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from signal import SIGTERM

from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.lock import is_held
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.embedded.process import has_ended, spawn, stop, tail
from ddit_batch.embedded.supervisor import already_running
from ddit_batch.errors import ServiceError

_POLL_S = 0.05
_HURRIED_STOP_S = 30.0
_LAST_BREATH_S = 5.0
_SUPERVISOR = (sys.executable, "-m", "ddit_batch.embedded.supervisor")


def start_cluster(
    home: Home,
    plan: ClusterPlan,
    *,
    with_parent: bool,
    timeout_s: float = 120.0,
    command: Sequence[str] = _SUPERVISOR,
) -> ClusterState:
    """Start a supervisor with *plan* in *home*, and wait until the cluster is ready.

    With *with_parent* the cluster stops when this process ends, however it ends; call it from
    the main thread then. Without, it goes on until :func:`stop_cluster`.

    Raises:
        ServiceError: A cluster runs there already, or it did not get ready; nothing is left of it.
    """
    home.create()
    if is_held(home.supervisor_lock):
        raise already_running(home)
    log = home.log("supervisor")
    seen_bytes = log.stat().st_size if log.exists() else 0
    supervisor = spawn(
        (*command, "--home", str(home.path), "--plan", plan.to_json()),
        env=os.environ,
        log=log,
        death_signal=SIGTERM if with_parent else None,
    )
    try:
        return _wait_ready(home, supervisor, seen_bytes=seen_bytes, timeout_s=timeout_s)
    except BaseException:
        stop(supervisor, SIGTERM, _HURRIED_STOP_S)
        raise


def _wait_ready(
    home: Home, supervisor: subprocess.Popen[bytes], *, seen_bytes: int, timeout_s: float
) -> ClusterState:
    deadline = time.monotonic() + timeout_s
    problem = f"the cluster in {home.path} did not start"
    while not has_ended(supervisor):
        state = running_cluster(home)
        if state and state.ready and state.supervisor_pid == supervisor.pid:
            return state
        if time.monotonic() >= deadline:
            problem = f"the cluster in {home.path} was not ready in {timeout_s:g} s"
            break
        time.sleep(_POLL_S)
    else:
        if is_held(home.supervisor_lock):
            raise already_running(home)  # another one was faster
    log = home.log("supervisor")
    raise ServiceError(f"{problem}; {log} ends with:\n{tail(log, since_bytes=seen_bytes)}")


def stop_cluster(home: Home, *, timeout_s: float = 60.0) -> bool:
    """Stop the cluster in *home*: workers give their jobs back, everything ends in order.

    Called again while a stop is under way, it makes that stop a quick one, as running out of
    *timeout_s* does.

    Returns:
        False if no cluster ran.

    Raises:
        ServiceError: It does not end.
    """
    state = running_cluster(home)
    if state is None:
        return False
    for patience_s in (timeout_s, _HURRIED_STOP_S):
        with suppress(ProcessLookupError):
            os.kill(state.supervisor_pid, SIGTERM)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not is_held(home.supervisor_lock):
                _wait_gone(state.supervisor_pid)
                return True
            time.sleep(_POLL_S)
    raise ServiceError(
        f"the cluster in {home.path} does not stop (its log: {home.log('supervisor')}): "
        f"`kill -9 {state.supervisor_pid}` ends it with all its children; no job is lost"
    )


def _wait_gone(pid: int) -> None:
    """Wait for the process that has given its lock back to be gone as well; it needs no more."""
    deadline = time.monotonic() + _LAST_BREATH_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return
        except ChildProcessError:  # not ours
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
        time.sleep(_POLL_S)


def is_running(home: Home) -> bool:
    """Whether a cluster runs in *home*."""
    return running_cluster(home) is not None
