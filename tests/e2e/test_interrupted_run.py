from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster_tools import Batch, Caught, Cluster, Figure, Sums
from e2e_processes import (
    assert_nothing_left,
    is_alive,
    processes_of,
    start_ddit,
    wait_until,
)
from e2e_prompts import EULER, write_prompts

from ddit_batch.embedded.home import Home, running_cluster
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.job import Phase

JOBS = ("fox", "long", "long-euler")
PLAN = ClusterPlan(dit_workers=1, models=())
"""That of a cluster whose workers these tests only look at."""
STEP = 24
"""Where jobs are interrupted."""
STOP_S = 15.0
"""The longest time from Ctrl-C to the end of everything."""
DIE_S = 5.0
"""The longest time that a child outlives a killed `ddit run`: 2 s on an idle machine."""


@dataclass(frozen=True)
class Run:
    """`ddit run` of a short and two long jobs, again and again in one folder."""

    ddit: Path
    """The program."""
    folder: Path
    words: tuple[str, ...]

    @property
    def home(self) -> Home:
        """Where it puts its home when it is not told where."""
        return Home(self.folder / ".ddit")

    @property
    def out(self) -> Path:
        """Where it puts videos when it is not told where."""
        return self.folder / "videos"

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the command."""
        return start_ddit(self.ddit, self.home.path, "run", *self.words, *more, log=self.talk)

    @property
    def talk(self) -> Path:
        """All that the runs have said."""
        return self.folder / "talk"

    def catch(self, custom_id: str) -> tuple[Cluster, Caught]:
        """Stop the DiT worker when it is in the middle of the job."""

        def is_ready() -> bool:
            state = running_cluster(self.home)
            return state is not None and state.ready

        wait_until(is_ready, "the cluster is ready")
        cluster = Cluster(self.home, PLAN)
        ((batch_id,),) = wait_until(
            lambda: cluster.rows("SELECT id FROM batches"), "the batch is there"
        )
        batch = Batch(cluster, batch_id, JOBS, self.out)
        return cluster, batch.catch(Phase.DIT, custom_id=custom_id, step=STEP)

    def jobs_now(self) -> dict[str, dict[str, Any]]:
        """The jobs' rows while nothing runs."""
        with running_postgres(self.home) as postgres:
            return jobs(postgres.service.url)


def jobs(database_url: str) -> dict[str, dict[str, Any]]:
    """The jobs' rows by custom_id, each with the first steps of its segments."""
    query = (
        "SELECT custom_id, to_jsonb(j) || jsonb_build_object('from_steps', "
        "(SELECT array_agg(from_step ORDER BY id) FROM segments s WHERE s.job_id = j.id)) "
        "FROM jobs j"
    )
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        return dict(connection.execute(query).fetchall())


@pytest.fixture
def run(tmp_path: Path, installed: Path, model_folders: dict[str, Path]) -> Iterator[Run]:
    """A run by an installed wheel in a folder with nothing but prompts."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", *JOBS)
    # First come first served, so that it is known which job is interrupted when.
    words = (prompts.name, "--model", str(model_folders[EULER]), "--policy", "static")
    run = Run(installed / "ddit", tmp_path, words)
    yield run
    for process in processes_of(run.home.path):
        process.kill()


def test_interrupted_run_goes_on_where_it_was(
    run: Run, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """Ctrl-C, then the same command killed with SIGKILL, then the same command to the end."""
    stopped = _stop_by_ctrl_c(run, figure)
    killed = _kill(run, stopped, figure)
    finished = run.start("--no-flower")

    assert finished.wait(timeout=90.0) == 0, run.talk.read_text()

    assert "goes on: 2 of 3 done" in run.talk.read_text()
    assert_nothing_left(run.home.path)
    jobs = run.jobs_now()
    assert (jobs["fox"], jobs["long"]) == (killed["fox"], killed["long"])
    assert jobs["long-euler"]["from_steps"] == [0, killed["long-euler"]["checkpoint_step"]]
    assert {path.name for path in run.out.glob("*.mp4")} == {f"{name}.mp4" for name in JOBS}
    for name in JOBS:
        manifest = json.loads((run.out / f"{name}.json").read_text())
        assert Sums.of(manifest) == undisturbed[name]


def _stop_by_ctrl_c(run: Run, figure: Figure) -> dict[str, dict[str, Any]]:
    """The first run: the running job is given back at the step where it was. Returns the jobs."""
    process = run.start("--flower")
    cluster, caught = run.catch("long")
    begun_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _thaw_when_told_to_stop(cluster, caught)

    assert process.wait(timeout=STOP_S) == 130, run.talk.read_text()

    figure("Ctrl-C: everything has ended after", time.monotonic() - begun_s, "s")
    assert_nothing_left(run.home.path)
    assert "the same command goes on from here" in run.talk.read_text()
    jobs = run.jobs_now()
    assert jobs["fox"]["state"] == "succeeded"
    job = jobs["long"]
    assert job["state"] == "encoded"
    assert caught.step <= job["step"] == job["checkpoint_step"]
    assert (run.home.store / job["checkpoint_key"]).exists()
    return jobs


def _kill(run: Run, before: dict[str, dict[str, Any]], figure: Figure) -> dict[str, dict[str, Any]]:
    """The second run goes on from the first's checkpoint, and is killed. Returns the jobs."""
    process = run.start("--no-flower")
    cluster, caught = run.catch("long-euler")
    begun_s = time.monotonic()
    process.kill()
    _thaw_when_told_to_stop(cluster, caught)

    assert_nothing_left(run.home.path, within_s=DIE_S)

    figure("kill -9 of `ddit run`: everything has ended after", time.monotonic() - begun_s, "s")
    process.wait()
    jobs = run.jobs_now()
    assert jobs["fox"] == before["fox"]
    assert jobs["long"]["from_steps"] == [0, before["long"]["checkpoint_step"]]
    assert jobs["long-euler"]["checkpoint_step"] > 0
    return jobs


def _thaw_when_told_to_stop(cluster: Cluster, caught: Caught) -> None:
    """Let the worker go on as soon as its stop is near, so that no job is done before it.

    The scheduler stops first, and then the workers are told.
    """
    scheduler = cluster.state.services["scheduler-0"]
    cluster.close()
    wait_until(lambda: not is_alive(scheduler), "the scheduler stops")
    time.sleep(0.05)
    caught.thaw()
