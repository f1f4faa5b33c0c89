from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cluster_tools import Figure, Sums
from e2e_processes import processes_of, start_ddit, wait_until
from e2e_prompts import write_prompts

from ddit_batch.embedded.home import Home, running_cluster
from ddit_batch.embedded.postgres import running_postgres

STOP_S = 15.0
"""The longest time from Ctrl-C to the end of everything."""
DIE_S = 3.0
"""The longest time that a child outlives a killed `ddit run`."""


@dataclass(frozen=True)
class Run:
    """`ddit run` of a short and a long job, again and again in one home."""

    home: Home
    out: Path
    words: list[str]

    @classmethod
    def of(cls, folder: Path) -> Run:
        """A run of two jobs with everything inside *folder*."""
        prompts = write_prompts(folder / "prompts.jsonl", "fox", "long")
        out = folder / "videos"
        return cls(Home(folder / "home"), out, ["run", str(prompts), "--out", str(out)])

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start the command."""
        return start_ddit(self.home.path, *self.words, *more, stderr=self.talk)

    @property
    def talk(self) -> Path:
        """All that the runs have said."""
        return self.out.with_name("stderr")

    def wait_step(self, process: subprocess.Popen[bytes], step: int) -> None:
        """Wait until the long job is denoised, and *step* steps far."""

        def is_there() -> bool:
            assert process.poll() is None, self.talk.read_text()
            state = running_cluster(self.home)
            with suppress(psycopg.Error):
                if state is not None and state.ready:
                    job = jobs(state.database_url)["long"]
                    return bool(job["state"] == "denoising" and job["step"] >= step)
            return False

        wait_until(is_there, f"the long job reaches step {step}", within_s=90.0)

    def jobs_now(self) -> dict[str, dict[str, Any]]:
        """The jobs' rows while nothing runs."""
        with running_postgres(self.home) as postgres:
            return jobs(postgres.service.url)


def jobs(database_url: str) -> dict[str, dict[str, Any]]:
    """The jobs' rows by custom_id, each with its attempts and segments."""
    query = (
        "SELECT custom_id, to_jsonb(j) || jsonb_build_object("
        " 'attempts', (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND claimed_at > '-infinity'),"
        " 'from_steps', (SELECT array_agg(from_step ORDER BY id) FROM segments s WHERE s.job_id = j.id)"
        ") FROM jobs j"
    )
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        rows = connection.execute(query).fetchall()
    found: dict[str, dict[str, Any]] = {"long": {"state": None, "step": 0}}
    return {**found, **dict(rows)}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run in a home of its own."""
    return Run.of(tmp_path)


def test_interrupted_run_goes_on_where_it_was(
    run: Run, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """Ctrl-C, then the same command killed with SIGKILL, then the same command to the end."""
    stopped = _stop_by_ctrl_c(run, figure)
    killed = _kill(run, stopped, figure)
    finished = run.start("--no-flower")

    assert finished.wait(timeout=90.0) == 0, run.talk.read_text()

    assert "1 of 2 done" in run.talk.read_text()
    assert processes_of(run.home.path) == []
    jobs = run.jobs_now()
    assert jobs["fox"] == stopped["fox"]
    assert jobs["long"]["from_steps"][-1] >= killed["long"]["checkpoint_step"] > 0
    for name in ("fox", "long"):
        manifest = json.loads((run.out / f"{name}.json").read_text())
        assert Sums.of(manifest) == undisturbed[name]
    assert len(list(run.out.iterdir())) == 4


def _stop_by_ctrl_c(run: Run, figure: Figure) -> dict[str, dict[str, Any]]:
    """The first run: the running job is given back at the step where it was. Returns the jobs."""
    process = run.start("--flower")
    run.wait_step(process, 20)
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
    assert job["step"] == job["checkpoint_step"] >= 20
    assert (run.home.store / job["checkpoint_key"]).exists()
    return jobs


def _kill(run: Run, before: dict[str, dict[str, Any]], figure: Figure) -> dict[str, dict[str, Any]]:
    """The second run goes on from the first's checkpoint, and dies. Returns the jobs."""
    process = run.start("--no-flower")
    checkpoint = before["long"]["checkpoint_step"]
    run.wait_step(process, checkpoint + 20)
    begun_s = time.monotonic()
    process.kill()

    wait_until(
        lambda: not processes_of(run.home.path), "every child ends too", within_s=DIE_S
    )

    figure("kill -9 of `ddit run`: everything has ended after", time.monotonic() - begun_s, "s")
    process.wait()
    jobs = run.jobs_now()
    assert jobs["fox"] == before["fox"]
    assert jobs["long"]["from_steps"] == [0, checkpoint]
    return jobs
