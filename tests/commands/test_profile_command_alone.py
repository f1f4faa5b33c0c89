"""``ddit profile`` on a database whose workers do what the test says."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from finished_batch import Driver
from sqlalchemy import Engine

from ddit_batch.cli import main
from ddit_batch.db.status import batches
from ddit_batch.db.submission import job_id
from ddit_batch.job import BatchId, JobState
from ddit_batch.profile import load_profile

WORDS = ("profile", "--shape", "32x32x5", "--shape", "64x64x9", "--repeats", "2", "--steps", "3")

Wait = Callable[[Engine, BatchId, object], None]


@pytest.fixture
def waiting(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Wait], None]:
    """Commands find the database; what happens while they wait is given."""
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    # The package has the command under the module's name.
    module = importlib.import_module("ddit_batch.cli.profile")
    return lambda wait: monkeypatch.setattr(module, "follow", wait)


def ddit(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def only_batch(engine: Engine) -> dict[JobState, int]:
    (batch,) = batches(engine)
    return dict(batch.jobs)


def test_what_came_out_is_written_and_what_did_not_is_told(
    waiting: Callable[[Wait], None], engine: Engine, tmp_path: Path
) -> None:
    """A shape that the device has no memory for is left out; the others make a profile."""
    driver = Driver(engine)

    def wait(engine: Engine, batch: BatchId, check: object) -> None:
        del engine, check
        for line in (1, 3):
            driver.succeed(job_id(batch, line))
        for line in (2, 4):
            driver.fail(job_id(batch, line))

    waiting(wait)
    file = tmp_path / "my gpu.yaml"

    done = ddit(*WORDS, "-o", str(file))

    assert done.exit_code == 0, done.stderr
    assert "64x64x9-1: out_of_memory: " in done.stderr
    profile = load_profile(file)
    assert profile.name == "my-gpu"
    assert [str(row.shape) for row in profile.table] == ["32x32x5"]
    assert profile.provenance.samples == 2


def test_nothing_is_written_if_nothing_came_out(
    waiting: Callable[[Wait], None], engine: Engine
) -> None:
    """Exit 1, with the causes."""
    driver = Driver(engine)

    def wait(engine: Engine, batch: BatchId, check: object) -> None:
        del engine, check
        for line in (1, 2, 3, 4):
            driver.fail(job_id(batch, line))

    waiting(wait)

    done = ddit(*WORDS)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("out_of_memory") == 4
    assert "nothing was measured" in done.stderr


def test_an_interrupted_measurement_leaves_no_videos_to_be_made(
    waiting: Callable[[Wait], None], engine: Engine
) -> None:
    """Ctrl-C cancels what was submitted; exit 130."""
    Driver(engine)

    def wait(*_: object) -> None:
        raise KeyboardInterrupt

    waiting(wait)

    done = ddit(*WORDS)

    assert (done.exit_code, done.stdout) == (130, "")
    assert only_batch(engine) == {JobState.CANCELLED: 4}


@pytest.mark.parametrize(
    ("words", "exit_code", "expected"),
    [
        (("--dop", "2"), 2, "--dop 2 cannot be measured: workers of this release denoise alone"),
        (("--shape", "64x64"), 2, "write WIDTHxHEIGHTxFRAMES, such as 1280x720x81"),
        (("--shape", "65x64x9"), 2, "profile:1: width: 65: "),
        (("--model", "sora"), 1, "model 'sora' is unknown"),
        ((), 1, "no worker is online to be measured: see `ddit doctor`"),
    ],
)
@pytest.mark.usefixtures("waiting")
def test_what_cannot_be_measured_is_refused_before_anything_is_submitted(
    engine: Engine, words: tuple[str, ...], exit_code: int, expected: str
) -> None:
    """With the rule and the cure."""
    done = ddit("profile", *words)

    assert done.exit_code == exit_code
    assert expected in done.stderr
    assert batches(engine) == ()
