"""A home for each test, made from one initialised Postgres, and a check that nothing is left."""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres

FAKE_SUPERVISOR = (sys.executable, str(Path(__file__).parent / "fake_supervisor.py"))


@pytest.fixture(scope="session")
def initialised_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = Home(tmp_path_factory.mktemp("first"))
    with running_postgres(home):
        pass
    yield home.data / "postgres"
    shutil.rmtree(home.data)


@pytest.fixture
def home(
    initialised_data: Path,
    tmp_path: Path,
    descendants: object,  # noqa: ARG001 -- its check comes before the data go back
) -> Iterator[Home]:
    """A home whose Postgres has been made, but does not run; one test after another gets it."""
    home = Home(tmp_path / "home")
    home.create()
    initialised_data.rename(home.data / "postgres")
    yield home
    (home.data / "postgres").rename(initialised_data)


@pytest.fixture
def fake_supervisor() -> tuple[str, ...]:
    """The command of a supervisor whose children of the plan are shell scripts."""
    return FAKE_SUPERVISOR


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until something holds."""

    def wait(holds: Callable[[], object], *, within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.02)

    return wait


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """Whether a process runs; one that only waits to be reaped does not."""

    def look(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return look


@pytest.fixture(autouse=True)
def descendants(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], list[psutil.Process]]]:
    """Find what this test started and what still runs, however it was orphaned."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv("DDIT_TEST_MARK", mark)
    me = psutil.Process()

    def is_ours(process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process == me:
                return False
            # Postgres overwrites its environment, but stays in its data folder
            return process.environ().get("DDIT_TEST_MARK") == mark or Path(
                process.cwd()
            ).is_relative_to(tmp_path)
        except psutil.Error:
            return False

    def find() -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if is_ours(process)]

    yield find
    deadline = time.monotonic() + 3.0
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        process.kill()
    assert not left, "the test left processes behind"
