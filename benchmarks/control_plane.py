"""The control plane under load: thousands of jobs through the real services, nothing to compute.

Starts a cluster of its own (Postgres, Valkey, a scheduler) and workers whose models only sleep
(``sleeping_workers.py``), submits one file, and waits until every line has succeeded. Says how many
jobs a second went through all three phases; how long a state change took, from a worker's call to
the commit's being back; how many connections Postgres had at most; and what the scheduler's memory
was when a tenth of the jobs was done and at the end.

    python benchmarks/control_plane.py [--jobs 10000] [--bar]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine, text

from ddit_batch.cli.prompts import load_prompts, submit_prompts
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import ClusterState, Home
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.job import Phase
from ddit_batch.simulator.report import percentile

MODEL = "tiny-wan"
WORKERS = {Phase.ENCODE: 3, Phase.DIT: 6, Phase.VAE: 3}
SLEEP_S = 0.01
LINE = {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}
LOOK_S = 1.0
STALL_S = 60.0
"""Nothing done for so long: given up."""
MAX_GROWTH = 0.05
"""What "flat" allows: the scheduler's memory at the end over that at a tenth."""
SETTINGS = (("DDIT_POLICY", "static:dop=1"), ("DDIT_LEASE_S", "30"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The cluster at one moment."""

    at_s: float
    done: int
    connections: int
    """Of clients to Postgres."""
    scheduler_mb: float
    """Resident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run has shown."""

    jobs: int
    seconds: float
    looks: tuple[Look, ...]
    changes_s: dict[str, list[float]]
    cpu_s: dict[str, float]
    """Processor seconds by service, from the submission to the end."""
    wrong: tuple[str, ...]
    """What is not as it should be, in words."""

    @property
    def growth(self) -> float:
        """Of the scheduler's memory, from a tenth of the jobs to the end."""
        return self.looks[-1].scheduler_mb / self.at_a_tenth.scheduler_mb - 1.0

    @property
    def at_a_tenth(self) -> Look:
        """Caches are warm, and most is still to come."""
        return next(look for look in self.looks if look.done >= self.jobs // 10)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--bar", action="store_true", help="exit 1 if the memory is not flat")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddit-bench-") as name:
        result = run(Path(name), given.jobs)
    print(table(result))
    wrong = list(result.wrong)
    if given.bar and result.growth > MAX_GROWTH:
        wrong.append(f"the scheduler's memory has grown by {result.growth:.1%}")
    if wrong:
        sys.exit("\n".join(wrong))


def run(folder: Path, jobs: int) -> Result:
    """All of it, in *folder*."""
    home, notes = Home(folder / "home"), folder / "notes"
    notes.mkdir()
    plan = ClusterPlan(
        dit_workers=0,
        encode_workers=0,
        vae_workers=0,
        models=(MODEL,),
        torch_threads=1,
        devices=("cpu",),
        extra_env=SETTINGS,
    )
    state = start_cluster(home, plan, with_parent=True)
    engine = make_engine(state.database_url)
    try:
        with sleeping_workers(home, state, engine, notes):
            before_s = cpu_s(state)
            seconds, looks = push_through(folder, state, engine, jobs)
            used_s = {name: after_s - before_s[name] for name, after_s in cpu_s(state).items()}
        wrong = tuple(_wrong(engine, jobs))
    finally:
        engine.dispose()
        stop_cluster(home)
    noted = [json.loads(file.read_text("utf-8")) for file in notes.glob("*.json")]
    changes_s = {name: [each for took in noted for each in took[name]] for name in noted[0]}
    return Result(
        jobs=jobs,
        seconds=seconds,
        looks=tuple(looks),
        changes_s=changes_s,
        cpu_s=used_s,
        wrong=wrong,
    )


def cpu_s(state: ClusterState) -> dict[str, float]:
    """Processor seconds that the services, with their children, have taken so far."""
    names = {"scheduler": "scheduler-0", "Postgres": "postgres", "Valkey": "valkey"}
    found = {}
    for name, service in names.items():
        parent = psutil.Process(state.services[service])
        ended = parent.cpu_times()
        found[name] = ended.children_user + ended.children_system
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found[name] += times.user + times.system
    return found


@contextmanager
def sleeping_workers(
    home: Home, state: ClusterState, engine: Engine, notes: Path
) -> Iterator[None]:
    """The workers, for the length of the block."""
    environment = {
        **os.environ,
        **dict(SETTINGS),
        "DDIT_DATABASE_URL": state.database_url,
        "DDIT_BROKER_URL": state.broker_url,
        "DDIT_ARTIFACTS_URL": state.artifacts_url,
        "DDIT_MODELS": MODEL,
        "DDIT_DEVICE": "cpu",
        "DDIT_TORCH_THREADS": "1",
        "DDIT_BUILT_MODELS_FOLDER": str(home.models),
    }
    words = [sys.executable, str(Path(__file__).with_name("sleeping_workers.py"))]
    words += [word for phase, count in WORKERS.items() for word in (f"--{phase}", str(count))]
    words += ["--sleep-s", str(SLEEP_S), "--notes", str(notes)]
    workers = subprocess.Popen(words, env=environment)
    try:
        _wait_registered(engine, workers)
        yield
    finally:
        workers.send_signal(signal.SIGTERM)
        try:
            workers.wait(timeout=60.0)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(workers.pid).children(recursive=True):
                child.kill()
            workers.kill()


def _wait_registered(engine: Engine, workers: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STALL_S
    query = text("SELECT count(*) FROM workers WHERE state = 'online'")
    while True:
        with engine.connect() as connection:
            if connection.execute(query).scalar_one() == sum(WORKERS.values()):
                return
        if workers.poll() is not None or time.monotonic() > deadline:
            sys.exit("the workers did not come up")
        time.sleep(0.2)


def push_through(
    folder: Path, state: ClusterState, engine: Engine, jobs: int
) -> tuple[float, list[Look]]:
    """Submit, and look until all are done: the seconds it took, and what was seen."""
    file = folder / "prompts.jsonl"
    lines = ({**LINE, "prompt": f"cat number {number}"} for number in range(jobs))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    prompts = load_prompts(str(file), model=MODEL, overrides={}, models_folder=None)
    scheduler = psutil.Process(state.services["scheduler-0"])
    submit_prompts(engine, prompts, out=folder / "out", new=False)
    begun_s = progress_s = time.monotonic()
    looks: list[Look] = []
    while not looks or looks[-1].done < jobs:
        time.sleep(LOOK_S)
        look = _look(engine, scheduler, begun_s)
        if not looks or look.done > looks[-1].done:
            progress_s = time.monotonic()
        if time.monotonic() - progress_s > STALL_S:
            sys.exit(f"{look.done} of {jobs} jobs are done, and none for {STALL_S:g} s")
        looks.append(look)
        if len(looks) % 30 == 0:
            print(f"{look.at_s:6.0f} s  {look.done:6d} done", file=sys.stderr)
    return _seconds(engine), looks


def _look(engine: Engine, scheduler: psutil.Process, begun_s: float) -> Look:
    with engine.connect() as connection:
        done, connections = connection.execute(
            text(
                "SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NOT NULL), "
                "(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
            )
        ).one()
    return Look(
        at_s=time.monotonic() - begun_s,
        done=done,
        connections=connections,
        scheduler_mb=scheduler.memory_info().rss / 1e6,
    )


def _seconds(engine: Engine) -> float:
    """From the commit of the submission to the last success, by the clock of the database."""
    with engine.connect() as connection:
        seconds = connection.execute(
            text(
                "SELECT extract(epoch FROM max(jobs.finished_at) - min(batches.created_at)) "
                "FROM jobs JOIN batches ON batches.id = jobs.batch_id"
            )
        ).scalar_one()
    return float(seconds)


def _wrong(engine: Engine, jobs: int) -> Iterator[str]:
    with engine.connect() as connection:
        states = dict(
            connection.execute(text("SELECT state, count(*) FROM jobs GROUP BY state")).all()
        )
        twice = connection.execute(
            text(
                "SELECT count(*) FROM (SELECT 1 FROM job_events WHERE to_state = 'succeeded' "
                "GROUP BY job_id HAVING count(*) > 1) AS doubled"
            )
        ).scalar_one()
        broken = connection.execute(
            text("SELECT count(*) FROM attempts WHERE outcome <> 'finish'")
        ).scalar_one()
    if states != {"succeeded": jobs}:
        yield f"not all have succeeded: {states}"
    if twice:
        yield f"{twice} have succeeded more than once"
    if broken:
        yield f"{broken} attempts were broken off"


def table(result: Result) -> str:
    """The figures, as rows of the page."""
    took_s = sorted(each for name in result.changes_s for each in result.changes_s[name])
    looks = result.looks
    workers = ", ".join(f"{count} {phase}" for phase, count in WORKERS.items())
    rows = [
        ("jobs, each three phases", f"{result.jobs:,} with {workers} workers"),
        ("through all phases", f"{result.jobs / result.seconds:.0f} jobs a second"),
        ("state changes by workers", f"{len(took_s) / result.seconds:.0f} a second"),
        (
            "a state change, call to commit: median, p99, worst",
            " / ".join(
                f"{1000 * each:.0f} ms"
                for each in (statistics.median(took_s), percentile(took_s, 99), took_s[-1])
            ),
        ),
        (
            "processor time of a job: " + ", ".join(result.cpu_s),
            ", ".join(f"{1000 * each / result.jobs:.0f} ms" for each in result.cpu_s.values()),
        ),
        ("connections to Postgres, at most", str(max(look.connections for look in looks))),
        (
            "memory of the scheduler: at a tenth, half, all",
            " / ".join(
                f"{look.scheduler_mb:.0f} MB"
                for look in (result.at_a_tenth, looks[len(looks) // 2], looks[-1])
            )
            + f" ({result.growth:+.1%})",
        ),
    ]
    return "\n".join(f"| {what} | {figure} |" for what, figure in rows)


if __name__ == "__main__":
    main()
