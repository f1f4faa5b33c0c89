from __future__ import annotations

from types import SimpleNamespace

import pytest
from deployed import LOOPBACK, free_port

from ddit_batch import metrics as metrics_module
from ddit_batch.cli.health import LONGEST_IDLE_S, check_flower, check_scheduler, check_worker
from ddit_batch.config import load_settings
from ddit_batch.errors import ConfigError, ServiceError
from ddit_batch.job import WorkerName
from ddit_batch.metrics import SchedulerMetrics


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that the metrics look at; a test moves its ``now_s``."""
    clock = SimpleNamespace(now_s=1000.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr(metrics_module, "time", clock)
    return clock


def test_scheduler_is_well_while_its_rounds_go_on(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Leading or waiting; ill once it has done nothing for too long."""
    address = f"{LOOPBACK}:{free_port()}"
    settings = load_settings(metrics_address=address)
    metrics = SchedulerMetrics()
    metrics.serve(address)

    check_scheduler(settings)
    metrics.leads(1)
    check_scheduler(settings)
    assert capsys.readouterr().err.splitlines() == ["ready to take the lead", "leads"]

    clock.now_s += LONGEST_IDLE_S + 1
    with pytest.raises(ServiceError, match="finished no round for 16 s"):
        check_scheduler(settings)

    metrics.round_took(0.1)
    check_scheduler(settings)


def test_scheduler_that_does_not_run_is_not_well() -> None:
    """Nobody answers at its address."""
    settings = load_settings(metrics_address=f"{LOOPBACK}:{free_port()}")

    with pytest.raises(ServiceError, match=r"does not answer: .*refused"):
        check_scheduler(settings)


@pytest.mark.parametrize("address", ["", f"{LOOPBACK}:0"])
def test_scheduler_without_a_known_address_cannot_be_asked(address: str) -> None:
    """The message names the variable and an example."""
    with pytest.raises(ConfigError, match=r"DDIT_METRICS_ADDRESS .* such as 127\.0\.0\.1:9464"):
        check_scheduler(load_settings(metrics_address=address))


def test_worker_cannot_be_well_without_its_database() -> None:
    """One sentence, without the URL."""
    url = f"postgresql+psycopg://ddit:secret@{LOOPBACK}:1/ddit"

    with pytest.raises(ServiceError) as error:
        check_worker(load_settings(database_url=url), WorkerName("dit-0@unit"))

    assert str(error.value) == "the database does not answer"


def test_flower_that_does_not_run_is_not_well() -> None:
    """Nobody answers at its port."""
    with pytest.raises(ServiceError, match="healthcheck does not answer"):
        check_flower(free_port())
