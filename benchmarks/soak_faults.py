"""Inflicts one fault on a live cluster, for real: signals, commands to the services, bytes on disk.

A fault that finds nothing to hit (no job is denoised in a group just now) waits a while for it,
and is then left out; the report says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any, assert_never

import psycopg
from redis import Redis, RedisError
from soak_plan import Fault, Planned

from ddit_batch.control import redis_url
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.job import JobId, Phase, queue_of

FROZEN_S = 6.0
"""Longer than the lease, and than the group timeout, of 3 s."""
BROKER_STOPPED_S = 30.0
DISK_FULL_S = 8.0
PATIENCE_S = 12.0
"""How long a fault waits for something that it can hit."""
_POLL_S = 0.05
_COPIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Inflicted:
    """What has been done."""

    fault: Fault
    at_s: float
    """By the clock of the database."""
    job_id: str | None
    """The job that the worker had."""


class Cluster:
    """What faults and gates need of a cluster."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.feed: Callable[[], None] = lambda: None
        """Sees to it that there is work; called while a fault waits for something to hit."""
        self._connection: psycopg.Connection | None = None

    @property
    def state(self) -> ClusterState:
        """What the supervisor says."""
        state = running_cluster(self.home)
        assert state is not None, "the cluster is gone"
        return state

    def rows(self, query: str, *values: object, patience_s: float = 60.0) -> list[tuple[Any, ...]]:
        """The rows of *query*; waits for Postgres if it is away."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                if self._connection is None:
                    url = self.state.database_url.replace("+psycopg", "")
                    self._connection = psycopg.connect(url, autocommit=True)
                cursor = self._connection.execute(query.encode(), values)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self._connection = None
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_S)

    def broker(self) -> Redis:
        """A connection to the broker."""
        return Redis.from_url(redis_url(self.state.broker_url), decode_responses=True)


def inflict(cluster: Cluster, planned: Planned) -> Inflicted | None:
    """Do it, to its end; None if there was nothing to hit."""
    fault, dice = planned.fault, planned.dice
    done: Inflicted | None
    match fault:
        case Fault.KILL_ENCODE | Fault.FREEZE_ENCODE:
            done = _worker(cluster, fault, Phase.ENCODE, dice)
        case Fault.KILL_VAE | Fault.FREEZE_VAE:
            done = _worker(cluster, fault, Phase.VAE, dice)
        case Fault.KILL_LEADER | Fault.FREEZE_LEADER:
            done = _member(cluster, fault, dice, at=0)
        case Fault.KILL_FOLLOWER | Fault.FREEZE_FOLLOWER:
            done = _member(cluster, fault, dice, at=-1)
        case Fault.KILL_SCHEDULER | Fault.FREEZE_SCHEDULER:
            pid = cluster.rows("SELECT holder FROM leadership")[0][0].rpartition(":")[2]
            done = _hit(cluster, fault, int(pid), None)
        case Fault.CORRUPT_CHECKPOINT:
            done = _corrupt(cluster, dice)
        case Fault.DUPLICATES:
            done = _deliver_again(cluster)
        case _:
            done = _service(cluster, fault)
    return done


def _service(cluster: Cluster, fault: Fault) -> Inflicted:
    done = Inflicted(fault=fault, at_s=_now_s(cluster), job_id=None)
    services = cluster.state.services
    match fault:
        case Fault.FLUSH_BROKER:
            with suppress(RedisError):
                cluster.broker().flushall()
        case Fault.KILL_BROKER:
            os.kill(services["valkey"], SIGKILL)
        case Fault.STOP_BROKER:
            _freeze(services["valkey"], BROKER_STOPPED_S)
        case Fault.KILL_POSTGRES:
            os.kill(services["postgres"], SIGKILL)
        case Fault.CUT_CONNECTIONS:
            with suppress(psycopg.OperationalError):
                cluster.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
        case Fault.FULL_DISK:
            _fill(cluster.home.store)
        case _:
            raise AssertionError(fault)
    return done


def _worker(cluster: Cluster, fault: Fault, phase: Phase, dice: float) -> Inflicted | None:
    """A worker of *phase*: one that holds a job, if that can be had."""
    query = (
        "SELECT w.pid, j.id FROM workers w LEFT JOIN jobs j ON j.holder = w.incarnation "
        "WHERE w.phase = %s AND w.state = 'online' ORDER BY j.id NULLS LAST, w.name"
    )

    def busy() -> list[tuple[Any, ...]]:
        return [row for row in cluster.rows(query, phase) if row[1] is not None]

    found = _wait_for(cluster, busy) or cluster.rows(query, phase)
    if not found:
        return None
    pid, job_id = _pick(found, dice)
    return _hit(cluster, fault, pid, job_id)


def _member(cluster: Cluster, fault: Fault, dice: float, *, at: int) -> Inflicted | None:
    """The leader (0) or the last follower (-1) of a job that is denoised."""
    found = _wait_for(cluster, lambda: _groups(cluster, least=1 if at == 0 else 2))
    if not found:
        return None
    job_id, workers = _pick(found, dice)
    pids = cluster.rows("SELECT pid FROM workers WHERE name = %s AND state = 'online'", workers[at])
    return _hit(cluster, fault, pids[0][0], job_id) if pids else None


def _groups(cluster: Cluster, *, least: int) -> list[tuple[Any, ...]]:
    return cluster.rows(
        "SELECT s.job_id, s.workers FROM segments s JOIN jobs j ON j.id = s.job_id "
        "WHERE s.ended_at IS NULL AND s.dop >= %s AND j.step > 0 AND j.state = 'denoising' "
        "ORDER BY s.job_id",
        least,
    )


def _corrupt(cluster: Cluster, dice: float) -> Inflicted | None:
    query = (
        "SELECT j.id, j.checkpoint_key, w.pid FROM jobs j "
        "JOIN workers w ON w.incarnation = j.holder "
        "WHERE j.state = 'denoising' AND j.checkpoint_key IS NOT NULL ORDER BY j.id"
    )
    found = _wait_for(cluster, lambda: cluster.rows(query))
    if not found:
        return None
    job_id, key, pid = _pick(found, dice)
    with suppress(ProcessLookupError):
        os.kill(pid, SIGSTOP)  # so that it does not write a newer one meanwhile
    now_s = _now_s(cluster)
    file = cluster.home.store / key
    with suppress(FileNotFoundError):
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(byte ^ 0xFF for byte in data[middle : middle + 64])
        file.write_bytes(data)
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)
    return Inflicted(fault=Fault.CORRUPT_CHECKPOINT, at_s=now_s, job_id=job_id)


def _deliver_again(cluster: Cluster) -> Inflicted:
    dispatcher = Dispatcher(make_celery(cluster.state.broker_url))
    done = Inflicted(fault=Fault.DUPLICATES, at_s=_now_s(cluster), job_id=None)
    live = cluster.rows(
        "SELECT job_id, phase, number, queue FROM attempts WHERE ended_at IS NULL ORDER BY job_id"
    )
    for job_id, phase, number, queue in live:
        for _ in range(_COPIES):
            match Phase(phase):
                case Phase.ENCODE:
                    dispatcher.encode(JobId(job_id), number)
                case Phase.DIT:
                    dispatcher.dit_then_vae(
                        JobId(job_id), number, queue=queue or queue_of(Phase.DIT), vae_attempt=1
                    )
                case Phase.VAE:
                    dispatcher.vae(JobId(job_id), number)
                case other:
                    assert_never(other)
    return done


def _hit(cluster: Cluster, fault: Fault, pid: int, job_id: str | None) -> Inflicted:
    done = Inflicted(fault=fault, at_s=_now_s(cluster), job_id=job_id)
    if fault.value.startswith("SIGSTOP"):
        _freeze(pid, FROZEN_S)
    else:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
    return done


def _freeze(pid: int, seconds: float) -> None:
    try:
        os.kill(pid, SIGSTOP)
        time.sleep(seconds)
    except ProcessLookupError:
        return
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGCONT)


def _fill(folder: Path) -> None:
    """Until nothing more fits; *folder* is a small file system of its own."""
    filler = folder / "filler~"
    try:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        time.sleep(DISK_FULL_S)
    finally:
        filler.unlink(missing_ok=True)


def _wait_for(cluster: Cluster, find: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := find()) and time.monotonic() < deadline:
        cluster.feed()
        time.sleep(_POLL_S)
    return found


def _pick(rows: Sequence[tuple[Any, ...]], dice: float) -> tuple[Any, ...]:
    return rows[int(dice * len(rows))]


def _now_s(cluster: Cluster) -> float:
    return float(cluster.rows("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])
