from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from ddit_batch.embedded.home import ClusterState, Home, publish, running_cluster
from ddit_batch.embedded.lock import hold
from ddit_batch.errors import ServiceError

STATE = ClusterState(
    supervisor_pid=os.getpid(),
    database_url="db",
    broker_url="broker",
    artifacts_url="store",
    services={"postgres": 1},
    restarts={"dit-0": 2},
    ready=True,
)


@pytest.fixture
def empty_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_state_is_believed_while_the_supervisor_holds_its_lock(empty_home: Home) -> None:
    """What the supervisor publishes is what others read."""
    with hold(empty_home.supervisor_lock):
        publish(empty_home, STATE)

        assert running_cluster(empty_home) == STATE


def test_state_of_a_dead_supervisor_is_not_believed(empty_home: Home) -> None:
    """A state file left behind counts for nothing, even if its process id lives again."""
    with hold(empty_home.supervisor_lock):
        publish(empty_home, STATE)

    assert json.loads(empty_home.cluster_file.read_text())["supervisor_pid"] == os.getpid()
    assert running_cluster(empty_home) is None


def test_looking_for_a_cluster_makes_nothing(tmp_path: Path) -> None:
    """Where no home is, none appears by asking."""
    assert running_cluster(Home(tmp_path / "home")) is None
    assert not (tmp_path / "home").exists()


def test_home_is_private(empty_home: Home) -> None:
    """Nobody else gets at the sockets, which ask for no password."""
    for folder in (empty_home.path, empty_home.socket_folder()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    """The message names the folder and the option."""
    (tmp_path / "file").touch()

    with pytest.raises(ServiceError, match=r"file/home.*--home"):
        Home(tmp_path / "file" / "home").create()


@pytest.mark.parametrize("name", ["deep/" * 30, "with blank", "a,b", "50%"])
def test_sockets_of_an_awkward_home_are_in_a_remembered_private_folder(
    tmp_path: Path, name: str
) -> None:
    """A path that no socket or URL could have is replaced by a short one, the same each time."""
    home = Home(tmp_path / name)
    home.create()

    folder = home.socket_folder()

    assert len(str(folder)) < 60
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert home.socket_folder() == folder
    folder.rmdir()
    assert home.socket_folder() == folder
    folder.rmdir()


def test_remembered_folder_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    """If somebody else made the folder meanwhile, the home takes a new one."""
    home = Home(tmp_path / "a,b")
    home.create()
    folder = home.socket_folder()
    folder.chmod(0o755)

    other = home.socket_folder()

    assert other != folder
    folder.rmdir()
    other.rmdir()
