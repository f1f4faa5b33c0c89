"""Cancel, wherever a job is: it stops soon, says how soon, and leaves nothing behind."""

from __future__ import annotations

import time

import pytest
from cluster_tools import Batch, Cluster, Figure
from deciding import deciding
from e2e_processes import ddit, wait_until
from e2e_prompts import GROUPED_STEPS, SQUARES
from group_cluster import events, ids, step_said, wait_group
from scripted import Scripted

from ddit_batch.job import JobState, Phase

SOON_S = 10.0
"""Far above what a step, a decision and a turn of these two cores take together."""


def cancel(batch: Batch, *custom_ids: str) -> None:
    """Have the jobs cancelled, or the whole batch."""
    names = [batch.job(name)["id"] for name in custom_ids] or [batch.batch_id]
    done = ddit(batch.cluster.home.path, "cancel", *names)
    assert done.returncode == 0, done.stderr


def assert_stopped(batch: Batch, custom_id: str) -> float:
    """The job has ended once, with a time to stop. Returns the time.

    If a worker had it then, it has left no file.
    """
    job = batch.job(custom_id)
    assert job["state"] == "cancelled", (job["failure_code"], job["failure_message"])
    assert events(batch, custom_id).count("cancel") == 1
    ((stopped_after_s, said, worker),) = batch.cluster.rows(
        "SELECT stopped_after_s, (detail ->> 'stopping_s')::float8, incarnation FROM job_status "
        "JOIN job_events USING (job_id) WHERE job_id = %s AND trigger = 'cancel'",
        job["id"],
    )
    assert 0 <= stopped_after_s == said < SOON_S
    folder = batch.cluster.home.store / "jobs" / job["id"]
    wait_until(
        lambda: not (worker and [path for path in folder.rglob("*") if path.is_file()]),
        f"the files of {custom_id} are deleted",
        within_s=5.0,
    )
    assert not list(batch.out.glob(f"{custom_id}.*"))
    return float(stopped_after_s)


@pytest.mark.parametrize("phase", list(Phase))
def test_job_stops_in_the_middle_of_any_phase(
    cluster: Cluster, figure: Figure, phase: Phase
) -> None:
    """The worker is held up, the cancel comes, the worker goes on: it does not finish the job."""
    cluster.forget_embeddings()
    batch = cluster.submit("long", "tram", "fox")
    name = "long" if phase is Phase.DIT else "%"
    caught = batch.catch(phase, custom_id=name, step=10 if phase is Phase.DIT else 0)

    cancel(batch, caught.custom_id)
    caught.thaw()
    batch.wait_done()

    took_s = assert_stopped(batch, caught.custom_id)
    figure(f"cancel in {phase}, with a held up worker", took_s, "s")
    others = set(batch.custom_ids) - {caught.custom_id}
    assert batch.count(JobState.SUCCEEDED) == len(others)
    shown = ddit(cluster.home.path, "status", batch.job(caught.custom_id)["id"])
    assert "stopped_after_s" in shown.stdout


@pytest.mark.chaos
def test_whole_batch_stops_wherever_its_jobs_are(session_cluster: Cluster, figure: Figure) -> None:
    """Queued, sent, running; said twice at that.

    One worker denoises, and is held up until the first cancel is said: a command takes as long to
    start as a long job takes to end.
    """
    session_cluster.mend({Phase.DIT: 1})
    batch = session_cluster.submit("long", "long-euler", *SQUARES)
    caught = batch.catch(Phase.DIT, custom_id="long%", step=5)

    cancel(batch)
    caught.thaw()
    cancel(batch)
    batch.wait_done(within_s=20.0)

    ended = [name for name in batch.custom_ids if batch.job(name)["state"] == "cancelled"]
    assert {"long", "long-euler"} <= set(ended)
    longest_s = max(assert_stopped(batch, name) for name in ended)
    figure(f"cancel of a batch, {len(ended)} jobs", longest_s, "s")
    assert batch.count(JobState.CANCELLED, JobState.SUCCEEDED) == len(batch.custom_ids)


@pytest.mark.parametrize("resizing", [False, True])
@pytest.mark.chaos
def test_job_stops_with_its_group(
    session_cluster: Cluster,
    figure: Figure,
    resizing: bool,  # noqa: FBT001
) -> None:
    """Or while the group is about to grow; all of its workers are free for the next job."""
    cluster, job = session_cluster, "unipc-cp"
    cluster.mend({Phase.DIT: 4})
    stages = [{job: (0, 1)}, {job: (0, 1, 2, 3)}]
    script = Scripted(stages=stages if resizing else stages[:1], steps=4)
    with deciding(cluster, script):
        batch = cluster.submit(job)
        script.jobs = ids(batch)
        wait_group(batch, job, (0, 1))
        if resizing:
            query = "SELECT 1 FROM plans WHERE job_id = %s AND cardinality(workers) = 4"
            wait_until(lambda: cluster.rows(query, batch.job(job)["id"]), "it is to grow")
        else:
            wait_until(lambda: step_said(batch, job) >= 5, "the group is at work")

        cancel(batch)
        batch.wait_done(within_s=20.0)

        took_s = assert_stopped(batch, job)
        figure(f"cancel of a group of two{', resizing' * resizing}", took_s, "s")
        assert batch.job(job)["step"] < GROUPED_STEPS
        after = cluster.submit("odd-usp")
        script.stages, script.at, script.jobs = [{"odd-usp": (0, 1, 2, 3)}], 0, ids(after)
        wait_group(after, "odd-usp", (0, 1, 2, 3))
        cancel(after)
        after.wait_done(within_s=20.0)


@pytest.mark.chaos
def test_cancel_that_comes_with_the_end_leaves_one_end(cluster: Cluster) -> None:
    """A job is cancelled without a video, or has succeeded with one."""
    batch = cluster.submit(*SQUARES[:8])
    pending = set(batch.custom_ids)
    deadline = time.monotonic() + 60
    while pending and time.monotonic() < deadline:
        for name in sorted(pending):
            if batch.job(name)["state"] in ("decoding", "succeeded"):
                cluster.rows(
                    "UPDATE jobs SET cancel_requested_at = now() WHERE id = %s "
                    "AND finished_at IS NULL",
                    batch.job(name)["id"],
                )
                pending.discard(name)
    batch.wait_done()

    for name in batch.custom_ids:
        ends = [trigger for trigger in events(batch, name) if trigger in ("cancel", "finish")]
        if batch.job(name)["state"] == "succeeded":
            wait_until(lambda n=name: (batch.out / f"{n}.mp4").exists(), "it is delivered")
            assert ends == ["finish"] * 3
        else:
            assert_stopped(batch, name)
            assert ends == ["finish", "finish", "cancel"]
