"""What a scheduler tells Prometheus. Every name, label and help text of the project is here.

The scheduler calls the methods of one ``SchedulerMetrics``; whether anybody listens is not its
matter. Nothing here is asked back: losing it all changes no decision. ``docs/metrics.md`` has the
table and says how to read it.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from ddit_batch.db.census import Counts
from ddit_batch.errors import ConfigError
from ddit_batch.job import FINAL_STATES, JobId, JobState, Phase
from ddit_batch.snapshot import JobView, Progress, Snapshot, WorkerView

CENSUS_S = 5.0
"""The least time between two counts of the jobs. With 100,000 jobs one takes 30 to 50 ms."""
CENSUS_SHARE = 0.02
"""The most of a leader's time that counting may take, however many jobs there are."""
MOST_SERIES = 100
"""Distinct (model, shape, dop) of step times; those after them go by the shape ``other``."""
WORKER_STATES = ("idle", "busy", "draining", "silent")
STEP_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
ROUND_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A metric, for people."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class _Shelf:
    """Makes metrics in one registry, and remembers what they are."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.descriptions: list[Description] = []

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self._describe(name, "gauge", text, labels)
        return Gauge(name, text, labels, registry=self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        self._describe(name, "counter", text, labels)
        return Counter(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...]
    ) -> Histogram:
        self._describe(name, "histogram", text, labels)
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    def _describe(self, name: str, kind: str, text: str, labels: tuple[str, ...]) -> None:
        self.descriptions.append(Description(name=name, kind=kind, labels=labels, text=text))


class SchedulerMetrics:
    """The metrics of one scheduler process, in a registry of their own."""

    def __init__(self) -> None:
        shelf = _Shelf()
        self.registry = shelf.registry
        self._describe_jobs(shelf)
        self._describe_workers(shelf)
        self._describe_scheduler(shelf)
        self.descriptions = tuple(shelf.descriptions)
        self._turned_s = time.monotonic()
        self._idle.set_function(lambda: time.monotonic() - self._turned_s)
        self._next_census_s = 0.0
        self._is_served = False
        self._reported: dict[JobId, tuple[int, int]] | None = None
        """Attempt and step of the last report of each job; None before the first look of a term."""
        self._series: set[tuple[str, str, int]] = set()

    def _describe_jobs(self, shelf: _Shelf) -> None:
        self._jobs = shelf.gauge("ddit_jobs", "Jobs in each state.", "state")
        self._oldest_waiting = shelf.gauge(
            "ddit_oldest_waiting_seconds",
            "How long the job that has waited longest for the phase has waited; 0 if none waits.",
            "phase",
        )
        self._finished = shelf.counter(
            "ddit_jobs_finished_total", "Jobs that reached a final state.", "state"
        )
        self._failed_attempts = shelf.counter(
            "ddit_attempts_failed_total",
            "Attempts that ended with a cause, by its code, the `failure_code` of SQL.",
            "phase",
            "code",
        )
        self._rescued = shelf.counter(
            "ddit_jobs_rescued_total", "Jobs taken back from workers that were gone.", "phase"
        )
        self._resent = shelf.counter(
            "ddit_messages_resent_total", "Messages sent again: the first had vanished.", "phase"
        )
        self._segments = shelf.counter(
            "ddit_segments_total",
            "Segments begun: `start` or `resume` of a job, or a resize, `grow` or `shrink`.",
            "reason",
        )
        self._step_seconds = shelf.histogram(
            "ddit_step_seconds",
            "Seconds of denoising steps, each counted once. Where steps follow one another faster "
            "than the scheduler looks, some are left out.",
            "model",
            "shape",
            "dop",
            buckets=STEP_BUCKETS_S,
        )
        # A counter that is there before its first event lets a rate see that event.
        for state in FINAL_STATES:
            self._finished.labels(state)
        for phase in Phase:
            self._rescued.labels(phase)
            self._resent.labels(phase)
        for reason in ("start", "resume", "grow", "shrink"):
            self._segments.labels(reason)

    def _describe_workers(self, shelf: _Shelf) -> None:
        self._workers = shelf.gauge(
            "ddit_workers",
            "Live workers: `idle`, `busy`, `draining`, or `silent` when the lease has run out.",
            "phase",
            "state",
        )
        self._lost = shelf.counter(
            "ddit_workers_lost_total", "Workers declared lost: their lease ran out.", "phase"
        )
        for phase in Phase:
            self._lost.labels(phase)

    def _describe_scheduler(self, shelf: _Shelf) -> None:
        self._round_seconds = shelf.histogram(
            "ddit_round_seconds",
            "Seconds of the leader's rounds: observe, decide, act.",
            buckets=ROUND_BUCKETS_S,
        )
        self._leads = shelf.gauge("ddit_scheduler_leads", "1 while this scheduler leads, else 0.")
        self._term = shelf.gauge(
            "ddit_scheduler_term", "The last term in which this scheduler led; 0 before the first."
        )
        self._idle = shelf.gauge(
            "ddit_scheduler_idle_seconds",
            "Seconds since this scheduler finished a round, or tried in vain to lead.",
        )

    def serve(self, address: str) -> str:
        """Answer scrapes at *address* from a thread of its own. Returns the URL.

        Raises:
            ConfigError: The address is not ``host:port``, or cannot be had.
        """
        host, port = _host_and_port(address)
        try:
            server, _ = start_http_server(port, addr=host, registry=self.registry)
        except OSError as exc:
            raise ConfigError(
                f"DDIT_METRICS_ADDRESS: {address} cannot be had ({exc.strerror}): "
                "choose another port, or 0 for a free one"
            ) from exc
        self._is_served = True
        return _url(host, server.server_port)

    # What service.py says.

    def waited(self) -> None:
        """Another scheduler leads."""
        self._turned_s = time.monotonic()

    def leads(self, term: int) -> None:
        """A term begins."""
        self._leads.set(1)
        self._term.set(term)
        self._reported = None
        self._next_census_s = 0.0

    def follows(self) -> None:
        """The term is over: who leads now speaks of jobs and workers."""
        self._leads.set(0)
        for gauge in (self._jobs, self._oldest_waiting, self._workers):
            gauge.clear()

    def round_took(self, seconds: float) -> None:
        """A round is done."""
        self._turned_s = time.monotonic()
        self._round_seconds.observe(seconds)

    def wants_census(self) -> bool:
        """Whether somebody may listen, and it is time to count the jobs."""
        return self._is_served and time.monotonic() >= self._next_census_s

    def counted(self, counts: Counts, *, took_s: float) -> None:
        """The jobs were counted."""
        self._next_census_s = time.monotonic() + max(CENSUS_S, took_s / CENSUS_SHARE)
        for state, jobs in counts.jobs.items():
            self._jobs.labels(state).set(jobs)
        for phase, waited_s in counts.oldest_waiting_s.items():
            self._oldest_waiting.labels(phase).set(waited_s)
        for state, jobs in counts.finished.items():
            self._finished.labels(state).inc(jobs)
        for (phase, code), attempts in counts.failed_attempts.items():
            self._failed_attempts.labels(phase, code).inc(attempts)
        for reason, segments in counts.segments.items():
            self._segments.labels(reason).inc(segments)

    # What live.py says.

    def observed(self, snapshot: Snapshot, reports: Mapping[JobId, Progress]) -> None:
        """A round has looked at the world."""
        states = _worker_states(snapshot)
        for phase in Phase:
            for state in WORKER_STATES:
                self._workers.labels(phase, state).set(states[phase, state])
        self._count_steps(snapshot, reports)

    def _count_steps(self, snapshot: Snapshot, reports: Mapping[JobId, Progress]) -> None:
        """Each report once, however often it is read. A term's first were an earlier leader's."""
        before, self._reported = self._reported, {}
        for job in snapshot.jobs:
            if job.state is not JobState.DENOISING:
                continue
            seen = (before or {}).get(job.job_id)
            report = reports.get(job.job_id)
            if report is not None and report.attempt == job.attempt:
                if before is not None and seen != (report.attempt, report.step):
                    self._step_seconds.labels(*self._labels(job)).observe(report.step_s)
                seen = (report.attempt, report.step)
            if seen is not None:
                self._reported[job.job_id] = seen

    def _labels(self, job: JobView) -> tuple[str, str, int]:
        series = (job.model, str(job.shape), job.dop)
        if len(self._series) < MOST_SERIES:
            self._series.add(series)
        return series if series in self._series else (job.model, "other", job.dop)

    def worker_lost(self, phase: Phase) -> None:
        """A worker was declared lost."""
        self._lost.labels(phase).inc()

    def job_rescued(self, phase: Phase) -> None:
        """A job was taken back from a worker that is gone."""
        self._rescued.labels(phase).inc()

    def message_resent(self, phase: Phase) -> None:
        """A message that had vanished was sent again."""
        self._resent.labels(phase).inc()


def _worker_states(snapshot: Snapshot) -> Tally[tuple[Phase, str]]:
    held = [job for job in snapshot.jobs if job.held]
    holders = {job.holder for job in held}
    members = {name for job in held for name in (*job.group, *job.next_group)}

    def state(worker: WorkerView) -> str:
        if worker.lease_expired:
            return "silent"
        if worker.draining:
            return "draining"
        is_busy = worker.incarnation in holders or worker.name in members
        return "busy" if is_busy else "idle"

    return Tally((worker.phase, state(worker)) for worker in snapshot.workers)


def metrics_url(address: str) -> str:
    """The URL at which this host reaches the metrics that are served at *address*.

    Raises:
        ConfigError: It is empty, or leaves the port open.
    """
    host, port = _host_and_port(address)
    if not port:
        raise ConfigError(
            f"DDIT_METRICS_ADDRESS is {address!r}: only a scheduler whose port is known "
            "can be asked; set it to such as 127.0.0.1:9464"
        )
    return _url({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 -- what others bind to


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise ConfigError(
            f"DDIT_METRICS_ADDRESS is {address!r}, not host:port such as 127.0.0.1:9464"
        )
    return host, port
