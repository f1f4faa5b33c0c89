from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from ddit_batch.embedded.cluster import is_running, start_cluster, stop_cluster
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.errors import ServiceError

pytestmark = pytest.mark.filterwarnings(
    "ignore:subprocess .* is still running:ResourceWarning"  # a detached supervisor is meant to be
)
PLAN = ClusterPlan(dit_workers=1, models=("tiny-wan",), flower=True)
NAMES = ["postgres", "valkey", "scheduler-0", "dit-0", "encode-0", "vae-0", "flower"]
Descendants = Callable[[], list[psutil.Process]]
Eventually = Callable[..., None]
Start = Callable[[ClusterPlan], ClusterState]


@pytest.fixture
def start(home: Home, fake_supervisor: tuple[str, ...]) -> Iterator[Start]:
    """Start a cluster in the test's home; what still runs at the end is killed."""

    def start_it(plan: ClusterPlan) -> ClusterState:
        return start_cluster(home, plan, with_parent=False, timeout_s=30.0, command=fake_supervisor)

    yield start_it
    if state := running_cluster(home):
        os.kill(state.supervisor_pid, signal.SIGKILL)


def with_env(**variables: str) -> ClusterPlan:
    return replace(PLAN, extra_env=tuple(variables.items()))


def state_of(home: Home) -> ClusterState:
    state = running_cluster(home)
    assert state is not None
    return state


def test_cluster_starts_everything_and_stops_it_in_order(
    home: Home, start: Start, descendants: Descendants, eventually: Eventually
) -> None:
    """When the start returns all children run; after the stop nothing is left but the data."""
    state = start(PLAN)

    assert state == running_cluster(home)
    assert list(state.services) == NAMES
    assert all(psutil.pid_exists(pid) for pid in state.services.values())
    assert state.flower_url is not None

    assert stop_cluster(home)

    stopped = (home.path / "stopped").read_text().split()
    assert stopped[:2] == ["scheduler-0", "flower"]
    assert sorted(stopped[2:]) == ["dit-0", "encode-0", "vae-0"]
    eventually(lambda: not descendants(), within_s=1.0)
    assert list((home.path / "run").iterdir()) == []
    assert not home.cluster_file.exists()
    assert not is_running(home)
    assert not stop_cluster(home)


def test_workers_of_a_deployment_have_no_services_of_their_own(
    home: Home, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are given those of the environment, of which nothing is written down here."""
    urls = {"DATABASE": "postgresql+psycopg://me:secret@far/ddit", "BROKER": "redis://:secret@far"}
    for name, url in (*urls.items(), ("ARTIFACTS", "s3://far/ddit")):
        monkeypatch.setenv(f"DDIT_{name}_URL", url)

    state = start(replace(PLAN, schedulers=0, flower=False, is_deployed=True))

    assert list(state.services) == ["dit-0", "encode-0", "vae-0"]
    worker = psutil.Process(state.services["dit-0"]).environ()
    assert worker["DDIT_DATABASE_URL"] == urls["DATABASE"]
    assert worker["DDIT_BROKER_URL"] == urls["BROKER"]
    assert worker["DDIT_ARTIFACTS_URL"] == "s3://far/ddit"
    assert "secret" not in home.cluster_file.read_text()
    for pid in (state.supervisor_pid, *state.services.values()):
        assert "secret" not in " ".join(psutil.Process(pid).cmdline())
    assert stop_cluster(home)


def test_killed_children_are_started_again(
    home: Home, start: Start, eventually: Eventually
) -> None:
    """Each comes back at once with a new process, Postgres and Valkey with what they held."""
    killed = {"postgres", "valkey", "dit-0", "flower"}
    before = start(PLAN)
    url = before.database_url.replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO kept VALUES ('here')")

    for name in killed:
        os.kill(before.services[name], signal.SIGKILL)
    eventually(lambda: set(state_of(home).restarts) == killed)

    after = state_of(home)
    assert after.ready
    changed = {name for name in NAMES if after.services[name] != before.services[name]}
    assert changed == killed

    def has_row() -> bool:
        try:
            with psycopg.connect(url) as connection:
                return connection.execute("SELECT word FROM kept").fetchone() == ("here",)
        except psycopg.OperationalError:
            return False

    eventually(has_row)
    stop_cluster(home)


def test_child_that_keeps_crashing_is_restarted_ever_more_slowly(home: Home, start: Start) -> None:
    """Restarts come after 0, 0.5, 1 and 2 s, and the state counts them."""
    start(with_env(CRASHING="dit-0"))

    time.sleep(2.2)

    assert state_of(home).restarts == {"dit-0": 3}
    assert home.log("dit-0").read_text() == "dit-0 started\n" * 4
    stop_cluster(home)


def test_child_that_was_asked_to_leave_is_not_started_again(
    home: Home, start: Start, eventually: Eventually
) -> None:
    """It is no part of the cluster any more; the others stay, and are started again as ever."""
    before = start(PLAN)
    (home.path / "drain-dit-0").touch()
    eventually(lambda: "dit-0" not in state_of(home).services)

    os.kill(before.services["vae-0"], signal.SIGKILL)
    eventually(lambda: state_of(home).restarts == {"vae-0": 1})

    assert sorted(state_of(home).services) == sorted(set(NAMES) - {"dit-0"})
    assert home.log("dit-0").read_text() == "dit-0 started\n"
    assert stop_cluster(home)


def test_killed_supervisor_leaves_nothing_running_and_the_next_can_start(
    home: Home, start: Start, descendants: Descendants, eventually: Eventually
) -> None:
    """SIGKILL takes all children down within 3 s; a start at once waits for them."""
    state = start(PLAN)
    old = set(descendants())
    assert len(old) > len(NAMES)
    os.kill(state.supervisor_pid, signal.SIGKILL)
    eventually(lambda: running_cluster(home) is None)

    again = start(PLAN)

    assert again.supervisor_pid != state.supervisor_pid
    assert stop_cluster(home)
    _, alive = psutil.wait_procs(old, timeout=3.0)
    assert alive == []

    state = start(PLAN)
    os.kill(state.supervisor_pid, signal.SIGKILL)
    eventually(lambda: not descendants(), within_s=3.0)


def test_two_starts_in_one_home_make_one_cluster(home: Home, start: Start) -> None:
    """One wins; the other, and whoever comes later, is told of `ddit down`."""
    with ThreadPoolExecutor() as pool:
        attempts = [pool.submit(start, PLAN) for _ in range(2)]
        refusals = [attempt.exception() for attempt in attempts]

    assert refusals.count(None) == 1
    (refusal,) = filter(None, refusals)
    assert isinstance(refusal, ServiceError)
    assert "ddit down" in str(refusal)
    with pytest.raises(ServiceError, match="ddit down"):
        start(PLAN)
    assert stop_cluster(home)


def test_second_supervisor_is_refused(home: Home, start: Start, tmp_path: Path) -> None:
    """Even without the look beforehand, the lock admits one supervisor."""
    before = start(PLAN)

    argv = (sys.executable, "-m", "ddit_batch.embedded.supervisor")
    second = subprocess.run(
        (*argv, "--home", str(home.path), "--plan", PLAN.to_json()),
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert second.returncode == 1
    assert f"process {before.supervisor_pid}" in second.stderr
    assert running_cluster(home) == before
    stop_cluster(home)


def test_failed_start_says_why_and_leaves_nothing(
    home: Home, start: Start, descendants: Descendants
) -> None:
    """The error has the reason and the log's path, and what had started is stopped."""
    with pytest.raises(ServiceError) as raised:
        start(with_env(BAD_MIGRATION="yes"))

    assert str(raised.value).endswith("the migration is bad")
    assert str(home.log("supervisor")) in str(raised.value)
    assert descendants() == []
    assert not is_running(home)


def test_start_that_takes_too_long_is_undone(
    home: Home,
    fake_supervisor: tuple[str, ...],
    descendants: Descendants,
    eventually: Eventually,
) -> None:
    """Wherever the start was, nothing of it goes on.

    A Postgres that was just being started ends with the supervisor, in some milliseconds more.
    """
    with pytest.raises(ServiceError, match=r"not ready in 0\.3 s"):
        start_cluster(home, PLAN, with_parent=False, timeout_s=0.3, command=fake_supervisor)

    eventually(lambda: descendants() == [])
    assert not is_running(home)


def test_second_request_to_stop_shortens_the_grace(
    home: Home, start: Start, descendants: Descendants, eventually: Eventually
) -> None:
    """A worker that does not stop is waited for, until somebody asks again."""
    state = start(with_env(STUBBORN="dit-0"))
    os.kill(state.supervisor_pid, signal.SIGTERM)
    time.sleep(0.5)
    assert psutil.pid_exists(state.services["dit-0"])

    since = time.monotonic()
    stop_cluster(home)

    assert time.monotonic() - since < 5.0
    eventually(lambda: not descendants(), within_s=1.0)


def test_cluster_of_a_command_ends_with_the_command(
    home: Home, fake_supervisor: tuple[str, ...], descendants: Descendants, eventually: Eventually
) -> None:
    """SIGKILL to the process that started it stops the cluster in order."""
    program = f"""
import time
from pathlib import Path
from ddit_batch.embedded.cluster import start_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan
plan = ClusterPlan.from_json({PLAN.to_json()!r})
start_cluster(Home(Path({str(home.path)!r})), plan, with_parent=True, command={fake_supervisor!r})
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        assert is_running(home)

        command.kill()

        eventually(lambda: not descendants(), within_s=5.0)
    assert (home.path / "stopped").read_text().split()[0] == "scheduler-0"
    assert list((home.path / "run").iterdir()) == []
