from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster_tools import Figure, Sums
from e2e_processes import processes_of, start_ddit, wait_until
from e2e_prompts import EULER, write_prompts

from ddit_batch.embedded.home import Home, running_cluster
from ddit_batch.embedded.postgres import running_postgres

JOBS = ("fox", "long", "long-euler")
STEP = 20
"""Step from which a job is far enough to be interrupted."""
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

    def wait_at_work(self, process: subprocess.Popen[bytes], custom_id: str) -> None:
        """Wait until the job is denoised, and some steps far."""

        def is_there() -> bool:
            assert process.poll() is None, self.talk.read_text()
            state = running_cluster(self.home)
            with suppress(psycopg.Error):
                if state is not None and state.ready:
                    job = jobs(state.database_url).get(custom_id)
                    return job is not None and job["state"] == "denoising" and job["step"] >= STEP
            return False

        wait_until(is_there, f"{custom_id} reaches step {STEP}", within_s=90.0)

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
    words = (prompts.name, "--model", str(model_folders[EULER]))
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
    assert processes_of(run.home.path) == []
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
    run.wait_at_work(process, "long")
    begun_s = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(timeout=STOP_S) == 130, run.talk.read_text()

    figure("Ctrl-C: everything has ended after", time.monotonic() - begun_s, "s")
    assert processes_of(run.home.path) == []
    assert "the same command goes on from here" in run.talk.read_text()
    jobs = run.jobs_now()
    assert jobs["fox"]["state"] == "succeeded"
    job = jobs["long"]
    assert job["state"] == "encoded"
    assert job["step"] == job["checkpoint_step"] >= STEP
    assert (run.home.store / job["checkpoint_key"]).exists()
    return jobs


def _kill(run: Run, before: dict[str, dict[str, Any]], figure: Figure) -> dict[str, dict[str, Any]]:
    """The second run goes on from the first's checkpoint, and is killed. Returns the jobs."""
    process = run.start("--no-flower")
    run.wait_at_work(process, "long-euler")
    begun_s = time.monotonic()
    process.kill()

    wait_until(lambda: not processes_of(run.home.path), "every child ends too", within_s=DIE_S)

    figure("kill -9 of `ddit run`: everything has ended after", time.monotonic() - begun_s, "s")
    process.wait()
    jobs = run.jobs_now()
    assert jobs["fox"] == before["fox"]
    assert jobs["long"]["from_steps"] == [0, before["long"]["checkpoint_step"]]
    assert jobs["long-euler"]["checkpoint_step"] > 0
    return jobs
