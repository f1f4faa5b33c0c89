from __future__ import annotations

from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from views_of_the_world import a_job, a_worker, a_world

from ddit_batch import metrics as metrics_module
from ddit_batch.db.census import Counts
from ddit_batch.errors import ConfigError
from ddit_batch.job import JobId, JobState, Phase, Shape, WorkerName
from ddit_batch.metrics import MOST_SERIES, SchedulerMetrics, metrics_url
from ddit_batch.snapshot import JobView, Progress

NO_COUNTS = Counts(jobs={}, oldest_waiting_s={}, finished={}, failed_attempts={}, segments={})
STEPS = {"model": "tiny-wan", "shape": "832x480x81", "dop": "1"}


def report(step: int, *, attempt: int = 1, step_s: float = 2.0) -> dict[JobId, Progress]:
    """What the leader of the first job last said."""
    return {JobId("b1-000001"): Progress(attempt=attempt, step=step, step_s=step_s)}


@pytest.fixture
def metrics() -> SchedulerMetrics:
    """The metrics of a scheduler whose term has begun, and that has looked once."""
    metrics = SchedulerMetrics()
    metrics.leads(1)
    metrics.observed(a_world(), {})
    return metrics


def value(metrics: SchedulerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_each_reported_step_is_counted_once(metrics: SchedulerMetrics) -> None:
    """However often a report is read, and however many rounds it stays."""
    for step in (1, 1, 2, 2, 2, 5):
        metrics.observed(a_world(a_job()), report(step))

    assert value(metrics, "ddit_step_seconds_count", **STEPS) == 3
    assert value(metrics, "ddit_step_seconds_sum", **STEPS) == 6.0


def test_step_of_a_new_attempt_is_another_step(metrics: SchedulerMetrics) -> None:
    """The same step number, done again after a worker was lost."""
    metrics.observed(a_world(a_job()), report(7))
    metrics.observed(a_world(a_job(attempt=2)), report(7, attempt=2))

    assert value(metrics, "ddit_step_seconds_count", **STEPS) == 2


def test_report_is_not_counted_again_when_the_broker_comes_back(metrics: SchedulerMetrics) -> None:
    """A round without reports does not make the next one forget."""
    metrics.observed(a_world(a_job()), report(3))
    metrics.observed(a_world(a_job()), {})
    metrics.observed(a_world(a_job()), report(3))

    assert value(metrics, "ddit_step_seconds_count", **STEPS) == 1


def test_reports_found_at_the_begin_of_a_term_are_not_counted(metrics: SchedulerMetrics) -> None:
    """The leader before has counted them."""
    metrics.leads(2)
    metrics.observed(a_world(a_job()), report(3))
    metrics.observed(a_world(a_job()), report(4))

    assert value(metrics, "ddit_step_seconds_count", **STEPS) == 1


@pytest.mark.parametrize(
    "job", [a_job(state=JobState.DENOISED), a_job(attempt=2)], ids=["done", "another attempt"]
)
def test_report_of_what_does_not_run_is_not_counted(
    metrics: SchedulerMetrics, job: JobView
) -> None:
    """Its dop and its time are not to be had together any more."""
    metrics.observed(a_world(job), report(3))

    assert value(metrics, "ddit_step_seconds_count", **STEPS) is None


def test_number_of_series_is_bounded(metrics: SchedulerMetrics) -> None:
    """Users may ask for any shape; those too many share a name."""
    for number in range(MOST_SERIES + 5):
        job = a_job(shape=Shape(16 * number + 16, 16, 5))
        metrics.observed(a_world(job), report(number + 1))

    shapes = {
        sample.labels["shape"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "ddit_step_seconds_count"
    }
    assert len(shapes) == MOST_SERIES + 1
    assert "other" in shapes


def test_workers_are_idle_busy_draining_or_silent(metrics: SchedulerMetrics) -> None:
    """One state each; every member of a group is busy, and who is about to join it."""
    group = (WorkerName("dit-1@unit"), WorkerName("dit-2@unit"))
    job = a_job(group=group, dop=2, pending=(*group, WorkerName("dit-6@unit")))
    workers = [
        a_worker(1),
        a_worker(2),
        a_worker(3),
        a_worker(4, draining=True),
        a_worker(5, lease_expired=True),
        a_worker(6),
    ]

    metrics.observed(a_world(job, *workers), {})

    found = {
        state: value(metrics, "ddit_workers", phase="dit", state=state)
        for state in metrics_module.WORKER_STATES
    }
    assert found == {"idle": 1, "busy": 3, "draining": 1, "silent": 1}
    assert value(metrics, "ddit_workers", phase="vae", state="idle") == 0


def test_recoveries_are_there_before_the_first(metrics: SchedulerMetrics) -> None:
    """Else a rate would not see the first event."""
    for name in (
        "ddit_jobs_rescued_total",
        "ddit_messages_resent_total",
        "ddit_workers_lost_total",
    ):
        assert value(metrics, name, phase="dit") == 0

    metrics.job_rescued(Phase.DIT)
    metrics.message_resent(Phase.DIT)
    metrics.worker_lost(Phase.DIT)

    for name in (
        "ddit_jobs_rescued_total",
        "ddit_messages_resent_total",
        "ddit_workers_lost_total",
    ):
        assert value(metrics, name, phase="dit") == 1


def test_counts_are_shown_and_added_up(metrics: SchedulerMetrics) -> None:
    """Jobs and ages are as counted last; events add up."""
    for queued in (5, 4):
        metrics.counted(
            Counts(
                jobs={JobState.QUEUED: queued},
                oldest_waiting_s={Phase.ENCODE: 12.5},
                finished={JobState.SUCCEEDED: 2},
                failed_attempts={(Phase.VAE, "out_of_memory"): 1},
                segments={"resume": 3},
            ),
            took_s=0.01,
        )

    assert value(metrics, "ddit_jobs", state="queued") == 4
    assert value(metrics, "ddit_oldest_waiting_seconds", phase="encode") == 12.5
    assert value(metrics, "ddit_jobs_finished_total", state="succeeded") == 4
    failed = {"phase": "vae", "code": "out_of_memory"}
    assert value(metrics, "ddit_attempts_failed_total", **failed) == 2
    assert value(metrics, "ddit_segments_total", reason="resume") == 6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock that the metrics look at; a test moves its ``now_s``."""
    clock = SimpleNamespace(now_s=1000.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr(metrics_module, "time", clock)
    return clock


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.03, 5.0), (2.0, 100.0)])
def test_jobs_are_counted_rarely(clock: SimpleNamespace, took_s: float, pause_s: float) -> None:
    """At most every five seconds, and never for more than a fiftieth of the time."""
    metrics = SchedulerMetrics()
    metrics.serve("127.0.0.1:0")
    assert metrics.wants_census()

    metrics.counted(NO_COUNTS, took_s=took_s)

    clock.now_s += pause_s - 0.1
    assert not metrics.wants_census()
    clock.now_s += 0.2
    assert metrics.wants_census()


def test_jobs_are_not_counted_for_nobody() -> None:
    """Without an address, no scan of the table."""
    assert not SchedulerMetrics().wants_census()


def test_follower_says_nothing_of_jobs_and_workers(metrics: SchedulerMetrics) -> None:
    """So that a sum over all schedulers is right."""
    metrics.observed(a_world(a_worker(1)), {})
    metrics.counted(
        Counts(
            jobs={JobState.QUEUED: 5},
            oldest_waiting_s={},
            finished={},
            failed_attempts={},
            segments={},
        ),
        took_s=0.01,
    )

    metrics.follows()

    assert value(metrics, "ddit_scheduler_leads") == 0
    assert value(metrics, "ddit_scheduler_term") == 1
    assert value(metrics, "ddit_jobs", state="queued") is None
    assert value(metrics, "ddit_workers", phase="dit", state="idle") is None


def test_idle_time_ends_with_a_round_or_a_vain_try(clock: SimpleNamespace) -> None:
    """It grows while a scheduler is stuck, or without its database."""
    metrics = SchedulerMetrics()

    clock.now_s += 20
    assert value(metrics, "ddit_scheduler_idle_seconds") == 20
    metrics.waited()
    assert value(metrics, "ddit_scheduler_idle_seconds") == 0
    clock.now_s += 30
    metrics.round_took(0.02)
    assert value(metrics, "ddit_scheduler_idle_seconds") == 0
    assert value(metrics, "ddit_round_seconds_count") == 1


def test_metrics_are_served_where_asked() -> None:
    """With port 0 on a free one, which is told."""
    url = SchedulerMetrics().serve("127.0.0.1:0")

    text = urlopen(url, timeout=5).read().decode()

    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"ddit_round_seconds", "ddit_scheduler_leads"} <= names


@pytest.mark.parametrize("address", ["9464", "localhost", "127.0.0.1:x", "", ":9464"])
def test_address_that_is_none_is_refused(address: str) -> None:
    """The message has the value and an example."""
    with pytest.raises(ConfigError, match=r"not host:port such as 127\.0\.0\.1:9464"):
        SchedulerMetrics().serve(address)


def test_address_that_is_taken_is_named() -> None:
    """Two schedulers on one host need two ports."""
    taken = SchedulerMetrics().serve("127.0.0.1:0").removeprefix("http://").partition("/")[0]

    with pytest.raises(ConfigError, match=f"{taken} cannot be had"):
        SchedulerMetrics().serve(taken)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:9464", "http://127.0.0.1:9464/metrics"),
        ("0.0.0.0:9464", "http://127.0.0.1:9464/metrics"),
        ("[::]:9464", "http://[::1]:9464/metrics"),
    ],
)
def test_metrics_of_this_host_are_found(address: str, url: str) -> None:
    """All interfaces are bound, the loopback is asked."""
    assert metrics_url(address) == url
