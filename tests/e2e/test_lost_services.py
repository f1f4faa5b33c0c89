from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

import pytest
from cluster_tools import Batch, Cluster, Figure, Sums
from e2e_processes import ddit, wait_until
from e2e_prompts import SHORT, write_prompts
from redis import RedisError

from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.job import Phase

TAKE_OVER_S = 2.5
"""The longest time without a leading scheduler while a second one waits."""
BATCH_S = 40.0
STANDS_STILL_S = 8.0

Fault = Callable[[Cluster], object]


def evict(cluster: Cluster) -> None:
    """Have the broker throw keys away, any of them, because it has no memory left."""
    broker = cluster.broker()
    limits = ("maxmemory", "maxmemory-policy")
    before = {name: broker.config_get(name)[name] for name in limits}
    broker.config_set("maxmemory-policy", "allkeys-random")
    broker.config_set("maxmemory", "1")
    with suppress(RedisError):  # it refuses to write, once it has nothing left to throw away
        broker.set("ddit:test", "more")
    assert broker.dbsize() == 0
    for name in reversed(limits):
        broker.config_set(name, before[name])


def stop_for_a_while(cluster: Cluster) -> None:
    """The broker answers nobody, and then goes on as if nothing had been."""
    pid = cluster.state.services["valkey"]
    os.kill(pid, SIGSTOP)
    time.sleep(STANDS_STILL_S)
    os.kill(pid, SIGCONT)


def cut_connections(cluster: Cluster) -> None:
    """Postgres ends every session but the one that asks for it."""
    cluster.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def deliver_again(cluster: Cluster) -> None:
    """Every message of a live attempt comes three times more."""
    dispatcher = Dispatcher(make_celery(cluster.state.broker_url))
    for job_id, phase, number, queue in cluster.rows(
        "SELECT job_id, phase, number, queue FROM attempts WHERE ended_at IS NULL"
    ):
        for _ in range(3):
            match Phase(phase):
                case Phase.ENCODE:
                    dispatcher.encode(job_id, number)
                case Phase.DIT:
                    dispatcher.dit_then_vae(job_id, number, queue=queue, vae_attempt=1)
                case Phase.VAE:
                    dispatcher.vae(job_id, number)


FAULTS: dict[str, Fault] = {
    "broker emptied by FLUSHALL": lambda cluster: cluster.broker().flushall(),
    "kill -9 of the broker": lambda cluster: cluster.kill("valkey"),
    "kill -9 of both schedulers": lambda cluster: [
        cluster.kill(name) for name in ("scheduler-0", "scheduler-1")
    ],
}
"""Of these one each in the quick suite."""
MORE_FAULTS: dict[str, Fault] = {
    "broker without memory throws keys away": evict,
    "broker stands still": stop_for_a_while,
    "all connections to Postgres cut": cut_connections,
    "every message delivered three times more": deliver_again,
}


def _batch_at_work(cluster: Cluster) -> Batch:
    """A batch with a job in denoising and others before and behind it."""
    cluster.forget_embeddings()
    batch = cluster.submit("long", *SHORT)
    batch.wait_step("long", 20)
    return batch


@pytest.mark.parametrize(
    "fault", [*FAULTS, *(pytest.param(name, marks=pytest.mark.chaos) for name in MORE_FAULTS)]
)
def test_every_job_ends_once(
    fault: str, cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """A service that dies or forgets in the middle of a batch costs time, and nothing else."""
    batch = _batch_at_work(cluster)

    begun_s = time.monotonic()
    (FAULTS | MORE_FAULTS)[fault](cluster)
    batch.wait_done(within_s=BATCH_S)

    figure(f"{fault}: batch done after", time.monotonic() - begun_s, "s")
    batch.assert_undisturbed(undisturbed)


@pytest.mark.chaos
@pytest.mark.parametrize("phase", Phase)
def test_worker_that_dies_between_its_result_and_its_acknowledgement_costs_nothing(
    phase: Phase, session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """What it has committed counts: no attempt is made again, and the next phase is sent.

    Given a worker that is stopped the moment that its result is in the database, before the broker
    has heard of it and before the next link of the chain was published.
    When it is killed.
    Then the job goes on to its one video.
    """
    session_cluster.mend({phase: 2})
    session_cluster.forget_embeddings()
    batch = session_cluster.submit("fox")
    kill_with_its_result(batch, phase)

    batch.wait_done()

    session_cluster.add_spare(phase)
    assert [end for end in batch.attempts("fox", phase) if end != "superseded"] == ["finish"]
    batch.assert_undisturbed(undisturbed)


def kill_with_its_result(batch: Batch, phase: Phase) -> None:
    """Kill the worker that has the job in *phase*, as soon as its attempt has finished."""
    cluster = batch.cluster
    query = (
        "SELECT w.pid, a.outcome FROM attempts a JOIN jobs j ON j.id = a.job_id "
        "JOIN workers w ON w.incarnation = a.incarnation WHERE batch_id = %s AND a.phase = %s"
    )
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for pid, outcome in cluster.rows(query, batch.batch_id, phase):
            if outcome == "finish":
                os.kill(pid, SIGKILL)
                return
    raise AssertionError(f"nobody has finished {phase}")


def test_run_watches_on_through_an_outage_of_postgres(
    cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure, tmp_path: Path
) -> None:
    """Postgres is killed in the middle of a batch: `ddit run` waits for it, and all jobs end."""
    names = ("long", *SHORT)
    prompts = write_prompts(tmp_path / "prompts.jsonl", *names, prefix="outage-")
    words = ("run", str(prompts), "--out", str(tmp_path), "--model", cluster.plan.models[1])
    home = cluster.home.path
    with ThreadPoolExecutor() as pool:
        run = pool.submit(ddit, home, *words)
        query = "SELECT step FROM jobs WHERE custom_id = 'outage-long' AND step > 20"
        wait_until(lambda: cluster.rows(query), "the long job is denoised")

        begun_s = time.monotonic()
        cluster.kill("postgres")
        done = run.result()

    figure("kill -9 of Postgres: `ddit run` done after", time.monotonic() - begun_s, "s")
    assert done.returncode == 0, done.stderr
    for name in names:
        manifest = json.loads((tmp_path / f"outage-{name}.json").read_text())
        assert Sums.of(manifest) == undisturbed[name]


@pytest.mark.chaos
def test_second_scheduler_takes_over(
    cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """The leader is killed in the middle of a batch: the other leads, and every job ends once."""
    batch = _batch_at_work(cluster)
    term, leader = _leader(cluster)

    os.kill(leader, SIGKILL)
    killed_at = time.time()
    wait_until(lambda: _leader(cluster)[0] > term, "another term begins")
    since = cluster.value("SELECT extract(epoch FROM since)::float8 FROM leadership")
    batch.wait_done(within_s=BATCH_S)

    figure("kill -9 of the leading scheduler: the other leads after", since - killed_at, "s")
    assert since - killed_at < TAKE_OVER_S
    assert _leader(cluster)[1] != leader
    batch.assert_undisturbed(undisturbed)


def _leader(cluster: Cluster) -> tuple[int, int]:
    """The term, and the process that leads."""
    ((term, holder),) = cluster.rows("SELECT term, holder FROM leadership")
    return int(term), int(holder.rpartition(":")[2])
