"""``ddit profile`` on a database whose workers and scheduler do what the test says."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from signal import SIGKILL

import psycopg
import pytest
from click.testing import CliRunner, Result
from finished_batch import Driver
from sqlalchemy import Engine, text

from ddit_batch.cli import main
from ddit_batch.cli.own_scheduler import Check
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.status import batches, one_batch
from ddit_batch.db.submission import job_id
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import Addresses, ClusterPlan
from ddit_batch.embedded.process import Service
from ddit_batch.job import BatchId, JobState, Phase, Shape, WorkerName
from ddit_batch.profile import load_profile
from ddit_batch.scheduler.service import LEADER_LOCK

WORDS = ("profile", "--shape", "32x32x5", "--shape", "64x64x9", "--repeats", "2", "--steps", "3")

Wait = Callable[[Engine, BatchId, Check], None]


@pytest.fixture(autouse=True)
def _database(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    monkeypatch.setenv("DDIT_BROKER_URL", "redis://nowhere")
    monkeypatch.setenv("DDIT_HOME", str(tmp_path / "home"))


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wait], None]:
    """What happens while the command waits for a batch is given."""
    module = importlib.import_module("ddit_batch.cli.measuring")
    return lambda wait: monkeypatch.setattr(module, "follow", wait)


@pytest.fixture
def _led(engine: Engine) -> Iterator[None]:
    """A scheduler leads, by the only thing that says so: it holds the lock."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LEADER_LOCK,))
        yield


@pytest.fixture
def schedulers(monkeypatch: pytest.MonkeyPatch) -> list[ClusterPlan]:
    """Of the schedulers that the command starts; they do nothing for a minute."""
    plans: list[ClusterPlan] = []

    def services(home: Home, plan: ClusterPlan, at: Addresses) -> tuple[Service]:
        assert at.database_url
        plans.append(plan)
        log = home.log("scheduler-0")
        argv = ("sleep", "60")
        return (Service(name="scheduler-0", argv=argv, env={}, log=log, death_signal=SIGKILL),)

    module = importlib.import_module("ddit_batch.cli.own_scheduler")
    monkeypatch.setattr(module, "planned_services", services)
    return plans


def a_second_worker(engine: Engine) -> None:
    """On the node of the driver's own."""
    LeaseStore(engine, lease_s=60.0).register(
        WorkerIdentity(
            name=WorkerName("dit-1@host"),
            phase=Phase.DIT,
            host="host",
            node="host",
            device="cpu",
            pid=1,
            models=("tiny-wan",),
            version="test",
        )
    )


def ddit(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def succeed(driver: Driver, batch: BatchId, lines: Sequence[int]) -> None:
    for line in lines:
        driver.succeed(job_id(batch, line))


@pytest.mark.usefixtures("_led")
def test_what_came_out_is_written_and_what_did_not_is_told(
    waiting: Callable[[Wait], None], engine: Engine, tmp_path: Path
) -> None:
    """A shape that the device has no memory for is left out; the others make a profile."""
    driver = Driver(engine)

    def wait(engine: Engine, batch: BatchId, check: Check) -> None:
        del check
        is_warm_up = one_batch(engine, batch).total == 2
        succeed(driver, batch, (1, 2) if is_warm_up else (1, 4))
        for line in () if is_warm_up else (2, 3):
            driver.fail(job_id(batch, line))

    waiting(wait)
    file = tmp_path / "my gpu.yaml"

    done = ddit(*WORDS, "-o", str(file))

    assert done.exit_code == 0, done.stderr
    assert "64x64x9-1: out_of_memory: " in done.stderr
    assert "its policy decides the dops" in done.stderr
    profile = load_profile(file)
    assert profile.name == "my-gpu"
    assert [str(row.shape) for row in profile.table] == ["32x32x5"]
    assert profile.provenance.samples == 2


def test_every_dop_is_measured_by_a_scheduler_that_gives_it_to_all(
    waiting: Callable[[Wait], None],
    schedulers: list[ClusterPlan],
    engine: Engine,
    tmp_path: Path,
) -> None:
    """Without the videos that warm up, and without the steps that a leader takes alone."""
    driver = Driver(engine)
    a_second_worker(engine)
    legal: list[tuple[int, ...]] = []

    def wait(engine: Engine, batch: BatchId, check: Check) -> None:
        check()
        found = one_batch(engine, batch)
        env = dict(schedulers[-1].extra_env)
        assert env["DDIT_PROFILE_FIXED"] == "true"
        legal.append(load_profile(Path(env["DDIT_PROFILES"])).for_model().dops(Shape(64, 64, 9)))
        succeed(driver, batch, range(1, found.total + 1))
        if "dop 2" in found.name:
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "UPDATE segments SET dop = 2, workers = '{dit-0@host,dit-1@host}' "
                        "FROM jobs WHERE jobs.id = job_id AND batch_id = :batch"
                    ),
                    {"batch": batch},
                )

    waiting(wait)
    file = tmp_path / "mine.yaml"

    done = ddit(*WORDS, "-o", str(file))

    assert done.exit_code == 0, done.stderr
    assert [plan.policy for plan in schedulers] == ["static:dop=1", "static:dop=2"]
    assert legal == [(1,), (1,), (1, 2), (1, 2)]
    by_name = {batch.name: batch.total for batch in batches(engine)}
    assert by_name == {
        "profile, dop 1, warm-up": 4,  # two shapes on two workers at once
        "profile, dop 1": 8,
        "profile, dop 2, warm-up": 2,
        "profile, dop 2": 4,
    }
    profile = load_profile(file)
    assert [sorted(row.step_s) for row in profile.table] == [[1, 2], [1, 2]]
    assert profile.provenance.samples == 2
    assert not any(row.note for row in profile.table)
    assert "for ddit simulate and ddit plan: --start-s " in done.stderr


def test_a_dop_that_did_not_come_up_is_missing_and_said_to_be(
    waiting: Callable[[Wait], None],
    schedulers: list[ClusterPlan],
    engine: Engine,
) -> None:
    """The leaders have gone on alone: their steps are no measure of either dop."""
    driver = Driver(engine)
    a_second_worker(engine)
    waiting(
        lambda engine, batch, _: succeed(
            driver, batch, range(1, one_batch(engine, batch).total + 1)
        )
    )

    done = ddit(*WORDS)

    assert done.exit_code == 0, done.stderr
    assert len(schedulers) == 2
    assert "dop 2: no group of 2 has denoised a video" in done.stderr
    assert done.stdout.count("Not measured: dop 2.") == 2
    assert "samples: 4" in done.stdout


@pytest.mark.usefixtures("_led")
def test_nothing_is_written_if_nothing_came_out(
    waiting: Callable[[Wait], None], engine: Engine
) -> None:
    """Exit 1, with the causes."""
    driver = Driver(engine)

    def wait(engine: Engine, batch: BatchId, check: Check) -> None:
        del check
        for line in range(1, one_batch(engine, batch).total + 1):
            driver.fail(job_id(batch, line))

    waiting(wait)

    done = ddit(*WORDS)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("out_of_memory") == 2 + 4
    assert "nothing was measured" in done.stderr


def test_an_interrupted_measurement_leaves_no_videos_to_be_made(
    waiting: Callable[[Wait], None], schedulers: list[ClusterPlan], engine: Engine
) -> None:
    """Ctrl-C cancels what was submitted, and submits no more; exit 130."""
    Driver(engine)

    def wait(*_: object) -> None:
        raise KeyboardInterrupt

    waiting(wait)

    done = ddit(*WORDS)

    assert (done.exit_code, done.stdout) == (130, "")
    assert len(schedulers) == 1
    (batch,) = batches(engine)
    assert batch.jobs == {JobState.CANCELLED: 2}


@pytest.mark.usefixtures("schedulers")
def test_a_scheduler_that_dies_is_not_waited_for(
    waiting: Callable[[Wait], None], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with its last words."""
    Driver(engine)
    module = importlib.import_module("ddit_batch.cli.own_scheduler")
    dying = module.planned_services

    def services(home: Home, plan: ClusterPlan, at: Addresses) -> tuple[Service]:
        dying(home, plan, at)
        log, argv = home.log("scheduler-0"), ("sh", "-c", "echo no more")
        return (Service(name="scheduler-0", argv=argv, env={}, log=log, death_signal=SIGKILL),)

    def wait(engine: Engine, batch: BatchId, check: Check) -> None:
        del engine, batch
        while True:
            check()

    monkeypatch.setattr(module, "planned_services", services)
    waiting(wait)

    done = ddit(*WORDS)

    assert done.exit_code == 1
    assert "the scheduler has ended" in done.stderr
    assert "no more" in done.stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "expected"),
    [
        (("--dop", "2"), 2, "no node has more than 1 DiT workers that serve tiny-wan"),
        (("--dop", "3"), 2, "3 does not divide its 4 attention heads: use 1, 2, 4"),
        (("--shape", "64x64"), 2, "write WIDTHxHEIGHTxFRAMES, such as 1280x720x81"),
        (("--shape", "65x64x9"), 2, "profile:1: width: 65: "),
        (("--model", "sora"), 1, "model 'sora' is unknown"),
    ],
)
@pytest.mark.usefixtures("schedulers")
def test_what_cannot_be_measured_is_refused_before_anything_is_submitted(
    engine: Engine, words: tuple[str, ...], exit_code: int, expected: str
) -> None:
    """With the rule and the cure."""
    Driver(engine)

    done = ddit("profile", *words)

    assert done.exit_code == exit_code
    assert expected in done.stderr
    assert batches(engine) == ()


@pytest.mark.usefixtures("_led")
def test_no_dop_can_be_asked_of_workers_that_a_scheduler_leads(engine: Engine) -> None:
    """Its policy decides."""
    Driver(engine)

    done = ddit("profile", "--dop", "1")

    assert done.exit_code == 2
    assert "a scheduler leads the workers at hand, and its policy decides: stop it" in done.stderr
    assert batches(engine) == ()


def test_without_workers_there_is_nothing_to_measure(engine: Engine) -> None:
    """The message names the command that looks further."""
    done = ddit("profile")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "no worker is online to be measured: see `ddit doctor`" in done.stderr
    assert batches(engine) == ()
