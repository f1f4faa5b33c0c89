from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import pytest
from cluster_tools import Batch, Cluster, Figure, Sums
from e2e_processes import ddit, wait_until
from e2e_prompts import SHORT, write_prompts

TAKE_OVER_S = 2.5
"""The longest time without a leading scheduler while a second one waits."""
BATCH_S = 40.0

Fault = Callable[[Cluster], object]

FAULTS: dict[str, Fault] = {
    "broker emptied by FLUSHALL": lambda cluster: cluster.broker().flushall(),
    "kill -9 of the broker": lambda cluster: cluster.kill("valkey"),
    "kill -9 of both schedulers": lambda cluster: [
        cluster.kill(name) for name in ("scheduler-0", "scheduler-1")
    ],
}


def _batch_at_work(cluster: Cluster) -> Batch:
    """A batch with a job in denoising and others before and behind it."""
    cluster.forget_embeddings()
    batch = cluster.submit("long", *SHORT)
    batch.wait_step("long", 20)
    return batch


@pytest.mark.parametrize("fault", FAULTS)
def test_every_job_ends_once(
    fault: str, cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """A service that dies or forgets in the middle of a batch costs time, and nothing else."""
    batch = _batch_at_work(cluster)

    begun_s = time.monotonic()
    FAULTS[fault](cluster)
    batch.wait_done(within_s=BATCH_S)

    figure(f"{fault}: batch done after", time.monotonic() - begun_s, "s")
    batch.assert_undisturbed(undisturbed)


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
