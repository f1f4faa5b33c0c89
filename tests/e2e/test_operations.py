"""What operators do to a cluster that works: pause, drain, cancel, change its schema."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from signal import SIGTERM

import pytest
from cluster_tools import Batch, Caught, Cluster, Sums
from deciding import deciding
from e2e_processes import ddit, is_alive, wait_until
from e2e_prompts import GROUPED_STEPS
from group_cluster import (
    assert_no_worker_in_two_groups,
    assert_steps_are_whole,
    events,
    groups,
    ids,
    pid_of,
    spans,
    step_said,
    wait_group,
)
from scripted import Scripted

from ddit_batch.db.drains import drain
from ddit_batch.db.engine import make_engine
from ddit_batch.dispatch import make_celery
from ddit_batch.job import JobState, Phase, queue_of

DRAIN_S = 20.0
"""What a worker has for it by default: ``DDIT_DRAIN_S``."""
Leave = Callable[[Cluster, str, int], None]
"""Has a worker, by its name and its process, leave."""
ASK_S = 1.0
"""How long a caught worker is held up for a question that may have to wait for it."""


def held(batch: Batch) -> int:
    """How many jobs of the batch workers hold."""
    return batch.count(JobState.ENCODING, JobState.DENOISING, JobState.DECODING)


def test_paused_batch_stands_still_and_goes_on_to_the_same_videos(
    cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """The running job comes back with a checkpoint; no step is lost, and none done in between."""
    home = cluster.home.path
    batch = cluster.submit("long", "fox")
    caught = batch.catch(Phase.DIT, custom_id="long", step=5)

    assert ddit(home, "pause", batch.batch_id).returncode == 0
    caught.thaw()
    wait_until(lambda: not held(batch), "nobody holds a job of it", within_s=20)
    stood, moves = batch.job("long"), events(batch, "long")
    time.sleep(2.0)
    assert (batch.job("long")["step"], held(batch)) == (stood["step"], 0)
    assert events(batch, "long") == moves
    assert moves[-1] == "give_back"
    assert 5 <= stood["checkpoint_step"] == stood["step"] < 100
    assert "paused" in ddit(home, "status", batch.batch_id).stdout

    assert ddit(home, "resume", batch.batch_id).returncode == 0
    batch.wait_done()

    spans = batch.segments("long")
    assert [(begin, reason) for begin, _, reason in spans][-1] == (stood["step"], "resume")
    assert sum(end - begin for begin, end, _ in spans) == 100
    assert batch.attempts("long", Phase.DIT)[-1] == "finish"
    batch.assert_undisturbed({name: undisturbed[name] for name in ("long", "fox")})


def drained(cluster: Cluster, worker: str, _pid: int) -> None:
    """As `ddit drain` asks, without the time that a command takes to start.

    A worker that was caught must not be held up for longer than its lease; and if it was caught in
    a transaction, it is asked once that has ended.
    """

    def ask() -> None:
        engine = make_engine(cluster.state.database_url)
        try:
            drain(engine, [worker])
        finally:
            engine.dispose()

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(timeout=ASK_S)


def terminated(_cluster: Cluster, _worker: str, pid: int) -> None:
    """As a service manager stops it."""
    os.kill(pid, SIGTERM)


def assert_left_in_order(cluster: Cluster, worker: str, pid: int) -> None:
    """The process ends within its time, and its incarnation with it, holding nothing."""
    wait_until(lambda: not is_alive(pid), f"{worker} has left", within_s=DRAIN_S)
    query = "SELECT state FROM workers WHERE name = %s AND pid = %s ORDER BY incarnation DESC"
    assert cluster.rows(query, worker, pid)[0] == ("stopped",)


def assert_stays_away(cluster: Cluster, worker: str) -> None:
    """The supervisor does not start it again."""
    service = worker.partition("@")[0]
    wait_until(lambda: service not in cluster.state.services, f"{service} is no service any more")
    assert not cluster.rows("SELECT 1 FROM workers WHERE name = %s AND state = 'online'", worker)


@pytest.mark.parametrize(
    ("phase", "leave"),
    [
        (Phase.ENCODE, terminated),
        (Phase.DIT, terminated),
        (Phase.VAE, terminated),
        pytest.param(Phase.ENCODE, drained, marks=pytest.mark.chaos),
        (Phase.DIT, drained),
        pytest.param(Phase.VAE, drained, marks=pytest.mark.chaos),
    ],
)
def test_worker_that_leaves_gives_its_job_back_or_finishes_it(
    session_cluster: Cluster, undisturbed: dict[str, Sums], phase: Phase, leave: Leave
) -> None:
    """In the middle of each phase. Nothing is lost, nobody is declared lost, and it stays away."""
    cluster = session_cluster
    cluster.mend({phase: 2})
    cluster.forget_embeddings()
    # alone, the long one is not preempted for a shorter one
    batch = cluster.submit(*(("long",) if phase is Phase.DIT else ("long", "tram", "fox")))
    name = "long" if phase is Phase.DIT else "%"
    caught = batch.catch(phase, custom_id=name, step=10 if phase is Phase.DIT else 0)

    leave(cluster, caught.name, caught.pid)
    caught.thaw()

    assert_left_in_order(cluster, caught.name, caught.pid)
    if leave is drained:
        asked = "SELECT drain_requested_at IS NOT NULL FROM workers WHERE name = %s AND pid = %s"
        assert cluster.value(asked, caught.name, caught.pid)
        if caught.name.partition("@")[0].endswith("-0"):
            assert_stays_away(cluster, caught.name)
    batch.wait_done()
    assert_not_lost(batch, caught)
    if phase is Phase.DIT:
        # one may have been sent to it before it was known to leave
        claimed = [end for end in batch.attempts("long", phase) if end != "superseded"]
        assert claimed == ["give_back", "finish"]
        (_, upto, _), (resumed, _, reason) = batch.segments("long")
        assert caught.step <= upto == resumed < 100
        assert reason == "resume"
    batch.assert_undisturbed({name: undisturbed[name] for name in batch.custom_ids})


def assert_not_lost(batch: Batch, caught: Caught) -> None:
    """No attempt of the batch had to be rescued."""
    for custom_id in batch.custom_ids:
        assert "worker_lost" not in events(batch, custom_id), caught


@pytest.mark.chaos
def test_idle_worker_leaves_at_once(session_cluster: Cluster) -> None:
    """It has nothing to give back; its exit code tells that it was asked to."""
    cluster = session_cluster
    cluster.mend({Phase.DIT: 2})
    name, pid = cluster.rows(
        "SELECT name, pid FROM workers WHERE name LIKE 'dit-1@%%' AND state = 'online'"
    )[0]
    begun = time.monotonic()

    done = ddit(cluster.home.path, "drain", name)
    assert (done.returncode, done.stderr) == (0, f"asked to leave: {name}\n")

    assert_left_in_order(cluster, name, pid)
    assert time.monotonic() - begun < DRAIN_S
    again = ddit(cluster.home.path, "drain", name)
    assert again.returncode == 1
    assert f"worker {name} is gone already: it is stopped" in again.stderr


@pytest.mark.parametrize(
    ("number", "leave", "then"),
    [(1, drained, [(0, 1), (0,)]), (0, terminated, [(0, 1), (1,)])],
    ids=["follower", "leader"],
)
@pytest.mark.chaos
def test_member_of_a_group_leaves_it_at_a_step_boundary(
    session_cluster: Cluster,
    alone: dict[str, Sums],
    leave: Leave,
    number: int,
    then: list[tuple[int, ...]],
) -> None:
    """The group goes on without its follower; without its leader the job goes on elsewhere."""
    cluster = session_cluster
    cluster.mend({Phase.DIT: 2})
    job = "unipc-cp"
    script = Scripted(stages=[{job: (0, 1)}, {job: (0, 1)}], steps=GROUPED_STEPS)
    fallback = {job: then[1]}
    with deciding(cluster, script):
        batch = cluster.submit(job)
        script.jobs = ids(batch)
        wait_group(batch, job, (0, 1))
        wait_until(lambda: step_said(batch, job) >= 10, "the group is at work")
        pid = pid_of(cluster, number)
        name = cluster.value("SELECT name FROM workers WHERE pid = %s AND state = 'online'", pid)
        leave(cluster, name, pid)
        if number == 0:
            script.stages = [fallback]
            script.at = 0
        assert_left_in_order(cluster, name, pid)
        batch.wait_done()

    assert groups(spans(batch), job) == then
    assert events(batch, job).count("give_back") == (1 if number == 0 else 0)
    assert_no_worker_in_two_groups(spans(batch))
    assert_steps_are_whole(spans(batch), job, GROUPED_STEPS)
    assert "worker_lost" not in events(batch, job)
    batch.assert_undisturbed(alone)


@pytest.mark.chaos
def test_message_of_another_protocol_is_left_alone(
    cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """As a scheduler of another release might send it: nobody claims by it, no job is hurt."""
    batch = cluster.submit("long", "fox")
    batch.wait_step("long", 5)
    queues = {phase: queue_of(phase) for phase in (Phase.ENCODE, Phase.VAE)}
    queues[Phase.DIT] = str(batch.job("long")["queue"])
    with make_celery(cluster.state.broker_url) as app:
        for phase, queue in queues.items():
            kwargs = {"job_id": batch.job("fox")["id"], "attempt": 1, "protocol": 99}
            app.signature(f"ddit.{phase}", kwargs=kwargs, queue=queue).apply_async()

    batch.wait_done()

    logs = [path.read_text() for path in cluster.home.logs.glob("*-?.log")]
    assert sum(log.count("a message of protocol 99 is left alone") for log in logs) == len(queues)
    batch.assert_undisturbed({name: undisturbed[name] for name in ("long", "fox")})


TABLES = ("batches", "jobs", "job_events", "attempts", "segments", "plans", "workers", "leadership")


@pytest.mark.chaos
def test_running_cluster_survives_an_additive_migration(
    cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """Columns come while jobs run, and the version of the schema with them; and they go again."""
    batch = cluster.submit(*undisturbed)
    batch.wait_step("long", 5)
    version = cluster.value("SELECT version_num FROM alembic_version")
    online = "SELECT incarnation FROM workers WHERE state = 'online' ORDER BY 1"

    for table in TABLES:
        cluster.rows(f"ALTER TABLE {table} ADD COLUMN of_the_future integer NOT NULL DEFAULT 7")
    cluster.rows("UPDATE alembic_version SET version_num = '9999'")
    lives, step = cluster.rows(online), batch.job("long")["step"]
    wait_until(lambda: batch.job("long")["step"] > step + 5, "steps go on")
    refused = ddit(cluster.home.path, "status")
    for table in TABLES:
        cluster.rows(f"ALTER TABLE {table} DROP COLUMN of_the_future")
    cluster.rows("UPDATE alembic_version SET version_num = %s", version)
    batch.wait_done()

    assert refused.returncode == 1
    assert "the database has schema 9999, this release needs" in refused.stderr
    assert set(lives) <= set(cluster.rows(online)), "a worker had to begin anew"
    batch.assert_undisturbed(undisturbed)
