"""A warm cluster that tests may hurt: submit, look, catch a worker at work, mend.

Everything is seen from outside, as a user or a fault sees it: SQL, the store's files, process ids.
Spares are workers of the same cluster that no supervisor starts again, as many as a test asks for.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from types import MappingProxyType
from typing import Any

import psycopg
from e2e_processes import is_alive, wait_until
from e2e_prompts import write_prompts
from redis import Redis

from ddit_batch.cli.prompts import load_prompts, submit_prompts
from ddit_batch.control import redis_url
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.home import ClusterState, Home, running_cluster
from ddit_batch.embedded.plan import Addresses, ClusterPlan, planned_services
from ddit_batch.embedded.process import Child, Service
from ddit_batch.job import WORKING_STATE, JobState, Phase

Row = tuple[Any, ...]

Figure = Callable[[str, float, str], None]
"""Keeps a name, a measured value and its unit for the end of the session."""

OUTAGE_S = 20.0
"""How long a query of a test waits for Postgres."""
FINAL = "('succeeded', 'failed', 'cancelled')"
NO_WISH: Mapping[Phase, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What tells two videos apart: the digests in a manifest."""

    frames: str
    video: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Sums:
        """The digests that *manifest* names."""
        return cls(frames=manifest["frames_sha256"], video=manifest["sha256"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """A worker that was stopped while it held a job."""

    job_id: str
    custom_id: str
    attempt: int
    pid: int
    name: str
    """``dit-0@host``."""
    incarnation: int
    step: int
    """How far its job was; 0 outside DiT."""
    at: float
    """When it was stopped, in seconds since the epoch, which is the database's clock too."""

    def kill(self) -> None:
        """End it for good, as the kernel's memory killer does."""
        os.kill(self.pid, SIGKILL)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, SIGCONT)


class Cluster:
    """One embedded cluster with its spares."""

    def __init__(self, home: Home, plan: ClusterPlan, models_folder: Path | None = None) -> None:
        self.home = home
        self.plan = plan
        self._models_folder = models_folder
        self._spares: dict[str, Child] = {}
        self._connection: psycopg.Connection | None = None
        self._batches = 0

    @property
    def state(self) -> ClusterState:
        """What the supervisor says."""
        state = running_cluster(self.home)
        assert state is not None, f"the cluster is gone, see {self.home.log('supervisor')}"
        return state

    def rows(self, query: str, *values: object) -> list[Row]:
        """The rows of *query*; waits for Postgres if it is away."""
        deadline = time.monotonic() + OUTAGE_S
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
                time.sleep(0.05)

    def value(self, query: str, *values: object) -> Any:
        """The one value that *query* gives."""
        ((value,),) = self.rows(query, *values)
        return value

    def broker(self) -> Redis:
        """A connection to the broker."""
        return Redis.from_url(redis_url(self.state.broker_url), decode_responses=True)

    def kill(self, service: str) -> None:
        """Kill the process of *service*."""
        os.kill(self.state.services[service], SIGKILL)

    def worker_pids(self, phase: Phase) -> list[int]:
        """The processes that serve *phase* now."""
        query = "SELECT pid FROM workers WHERE phase = %s AND state = 'online'"
        return [row[0] for row in self.rows(query, phase)]

    def incarnation(self, worker: str) -> int:
        """The newest incarnation of the worker *worker*."""
        return int(self.value("SELECT max(incarnation) FROM workers WHERE name = %s", worker))

    def log(self, worker: str) -> str:
        """The log of the worker *worker*, which may have its host in its name."""
        return self.home.log(worker.partition("@")[0]).read_text()

    # batches

    def submit(self, *custom_ids: str, priority: int = 0) -> Batch:
        """Submit the lines of *custom_ids* as a new batch, to a folder of its own."""
        folder = self._new_folder()
        file = write_prompts(folder / "prompts.jsonl", *custom_ids)
        return self._submit(file, self.plan.models[1], folder, priority=priority)

    def submit_file(self, file: Path, *, model: str) -> Batch:
        """Submit all lines of *file* as a new batch, to a folder of its own."""
        return self._submit(file, model, self._new_folder())

    def _new_folder(self) -> Path:
        self._batches += 1
        folder = self.home.path.parent / f"batch-{self._batches}"
        folder.mkdir()
        return folder

    def _submit(self, file: Path, model: str, folder: Path, *, priority: int = 0) -> Batch:
        overrides = {"priority": str(priority)}
        prompts = load_prompts(
            str(file), model=model, overrides=overrides, models_folder=self._models_folder
        )
        engine = make_engine(self.state.database_url)
        submission = submit_prompts(engine, prompts, out=folder / "out", new=True)
        engine.dispose()
        ids = tuple(request.custom_id for request in prompts.requests)
        return Batch(self, submission.batch_id, ids, folder / "out")

    def forget_embeddings(self) -> None:
        """Empty the cache of embeddings, so that the next encode has work to do."""
        for path in (self.home.store / "embeddings").rglob("*.safetensors"):
            path.unlink()

    # being whole

    def mend(self, exactly: Mapping[Phase, int] = NO_WISH) -> None:
        """Wait until every service runs, every phase has a worker or two, and no job is live.

        The phases in *exactly* have so many workers then. Live jobs are what a failed test has
        left: they are cancelled.
        """
        for pid in self._pids().values():
            with suppress(ProcessLookupError):
                os.kill(pid, SIGCONT)
        self.rows(f"UPDATE jobs SET cancel_requested_at = now() WHERE state NOT IN {FINAL}")
        for phase in Phase:
            most = exactly.get(phase, 2)
            surplus = [n for n in self._spares if n.startswith(phase) and _number(n) >= most]
            for name in surplus:
                self._spares.pop(name).stop()
        for phase in Phase:
            if f"{phase}-0" not in self.state.services:  # it was asked to leave, for good
                self.add_spare(phase, 0)
        for phase, count in exactly.items():
            for number in range(1, count):
                self.add_spare(phase, number)
        counts: dict[Phase, Collection[int]] = {phase: {1, 2} for phase in Phase}
        counts |= {phase: {count} for phase, count in exactly.items()}
        what = f"the cluster is whole again, see {self.home.logs}"
        wait_until(lambda: self._is_whole(counts), what, within_s=60.0)

    def add_spare(self, phase: Phase, number: int = 1) -> None:
        """Start the worker *number* of *phase*, unless it runs; number 0 is the supervisor's."""
        spare = self._spare(phase, number)
        if not spare.is_alive():
            spare.start()

    def add_odd_spare(self, phase: Phase, env: Mapping[str, str]) -> None:
        """Start worker 1 of *phase* with other variables, in place of a spare; wait for it."""
        self.drop_spare(phase)
        usual = self._spare(phase, 1).service
        spare = self._spares[f"{phase}-1"] = Child(replace(usual, env={**usual.env, **env}))
        spare.start()
        query = (
            "SELECT count(*) FROM workers WHERE state = 'online' AND pid = %s AND phase = %s "
            "AND lease_expires_at > clock_timestamp()"
        )
        assert spare.process is not None
        pid = spare.process.pid
        wait_until(lambda: self.value(query, pid, phase), "the worker is online", within_s=60.0)

    def drop_spare(self, phase: Phase, number: int = 1) -> None:
        """Stop the spare *number* of *phase* and forget it, if there is one."""
        spare = self._spares.pop(f"{phase}-{number}", None)
        if spare is not None:
            spare.stop()

    @contextmanager
    def led_by_odd_scheduler(self, env: Mapping[str, str]) -> Iterator[None]:
        """A scheduler with other variables leads; the cluster's own are frozen meanwhile."""
        frozen = [self.state.services[f"scheduler-{i}"] for i in range(self.plan.schedulers)]
        usual = self._planned("scheduler-0")
        odd = Child(replace(usual, lock=None, env={**usual.env, **env}))
        try:
            for pid in frozen:
                os.kill(pid, SIGSTOP)
            # what a frozen leader holds, it holds for as long as its session lives
            self.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            )
            odd.start()
            assert odd.process is not None
            leads = f"SELECT count(*) FROM leadership WHERE holder LIKE '%%:{odd.process.pid}'"
            wait_until(lambda: self.value(leads) == 1, "the odd scheduler leads", within_s=30.0)
            yield
        finally:
            odd.stop()
            for pid in frozen:
                os.kill(pid, SIGCONT)

    def close(self) -> None:
        """Let go of the spares and the database."""
        for child in self._spares.values():
            child.kill()
        if self._connection is not None:
            self._connection.close()

    def _spare(self, phase: Phase, number: int) -> Child:
        """A worker of *phase*, as the supervisor would start it if its plan had so many."""
        name = f"{phase}-{number}"
        if name not in self._spares:
            self._spares[name] = Child(self._planned(name, workers=number + 1))
        return self._spares[name]

    def _planned(self, name: str, *, workers: int = 1) -> Service:
        """The service *name*, as it would be with so many *workers* of each phase."""
        at = Addresses(
            database_url=self.state.database_url,
            broker_url=self.state.broker_url,
            artifacts_url=self.state.artifacts_url,
            flower_port=0,
        )
        plan = replace(self.plan, dit_workers=workers, encode_workers=workers, vae_workers=workers)
        return next(s for s in planned_services(self.home, plan, at) if s.name == name)

    def _pids(self) -> dict[str, int]:
        """The process of each service and each spare that was started."""
        spares = {c.service.name: c.process.pid for c in self._spares.values() if c.process}
        return {**self.state.services, **spares}

    def _is_whole(self, counts: Mapping[Phase, Collection[int]]) -> bool:
        pids = self._pids()
        if not all(map(is_alive, self.state.services.values())):
            return False
        live = Counter(
            phase
            for phase, name, pid in self.rows(
                "SELECT phase, split_part(name, '@', 1), pid FROM workers "
                "WHERE state = 'online' AND lease_expires_at > clock_timestamp()"
            )
            if pids.get(name) == pid and is_alive(pid)
        )
        jobs = self.value(f"SELECT count(*) FROM jobs WHERE state NOT IN {FINAL}")
        return jobs == 0 and all(live[phase] in counts[phase] for phase in Phase)


@dataclass(frozen=True, slots=True)
class Batch:
    """One submitted file in a cluster."""

    cluster: Cluster
    batch_id: str
    custom_ids: tuple[str, ...]
    out: Path

    def job(self, custom_id: str) -> dict[str, Any]:
        """The job's row."""
        return dict(
            self.cluster.value(
                "SELECT to_jsonb(j) FROM jobs j WHERE batch_id = %s AND custom_id = %s",
                self.batch_id,
                custom_id,
            )
        )

    def count(self, *states: JobState) -> int:
        """How many of its jobs are in one of *states*."""
        return int(
            self.cluster.value(
                "SELECT count(*) FROM jobs WHERE batch_id = %s AND state = ANY(%s)",
                self.batch_id,
                list(states),
            )
        )

    def wait_done(self, *, within_s: float = 60.0) -> None:
        """Wait until every job is in a final state."""
        ends = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
        wanted = len(self.custom_ids)
        wait_until(lambda: self.count(*ends) == wanted, "all jobs end", within_s=within_s)

    def wait_delivered(self) -> None:
        """Wait until the user has the files of every job, all of which succeed.

        They are made just after a success is committed, or some seconds later by another worker,
        and noted after that: only then a job's row changes no more.
        """
        due = "SELECT count(*) FROM jobs WHERE batch_id = %s AND delivered_at IS NULL"
        wait_until(
            lambda: not self.cluster.value(due, self.batch_id),
            "all deliveries are noted",
            within_s=10.0,
        )

    def sums(self) -> dict[str, Sums]:
        """The digests of its videos by custom_id, as soon as they are delivered."""
        self.wait_delivered()
        return {name: Sums.of(self.manifest(name)) for name in self.custom_ids}

    def wait_step(self, custom_id: str, step: int) -> None:
        """Wait until a job is denoised, and *step* steps far."""
        wait_until(
            lambda: (job := self.job(custom_id))["state"] == "denoising" and job["step"] >= step,
            f"{custom_id} reaches step {step}",
        )

    def catch(
        self, phase: Phase, *, custom_id: str = "%", step: int = 0, within_s: float = 60.0
    ) -> Caught:
        """Stop a worker that is in the middle of *phase* of one of the jobs, however short it is.

        With a *step*, one that is as far and has a checkpoint.
        """
        query = (
            "SELECT j.id, j.custom_id, j.attempt, w.pid, w.name, w.incarnation "
            "FROM jobs j JOIN workers w ON w.incarnation = j.holder "
            "WHERE batch_id = %s AND custom_id LIKE %s AND j.state = %s "
            "AND (%s = 0 OR checkpoint_step > 0)"
        )
        values = (self.batch_id, custom_id, WORKING_STATE[phase], step)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            for row in self.cluster.rows(query, *values):
                job_id, name, attempt, pid, worker, incarnation = row
                if step and self._step(job_id) < step:
                    continue
                os.kill(pid, SIGSTOP)
                at = time.time()
                time.sleep(0.05)  # a commit that it had sent may still come through
                if row in self.cluster.rows(query, *values):
                    return Caught(
                        job_id=job_id,
                        custom_id=name,
                        attempt=attempt,
                        pid=pid,
                        name=worker,
                        incarnation=incarnation,
                        step=self._step(job_id),
                        at=at,
                    )
                os.kill(pid, SIGCONT)
        raise AssertionError(f"no worker was caught at {phase} in {within_s:g} s")

    def _step(self, job_id: str) -> int:
        """The job's step as its worker last said it, which it does after every step."""
        with self.cluster.broker() as broker:
            said = broker.hget("ddit:progress", job_id)
        return int(json.loads(str(said))["step"]) if said else 0

    def recovery_s(self, caught: Caught, phase: Phase) -> float:
        """Seconds from the fault until somebody else had claimed the job."""
        query = (
            "SELECT extract(epoch FROM claimed_at)::float8, incarnation FROM attempts "
            "WHERE job_id = %s AND phase = %s AND number > %s AND claimed_at IS NOT NULL "
            "ORDER BY number LIMIT 1"
        )
        values = (caught.job_id, phase, caught.attempt)
        ((claimed_at, incarnation),) = wait_until(
            lambda: self.cluster.rows(query, *values), f"{caught.job_id} is claimed again"
        )
        assert incarnation != caught.incarnation
        return float(claimed_at) - caught.at

    def attempts(self, custom_id: str, phase: Phase) -> list[str | None]:
        """The outcomes of the attempts at *phase*, in order."""
        return [
            row[0]
            for row in self.cluster.rows(
                "SELECT a.outcome FROM attempts a JOIN jobs j ON j.id = a.job_id "
                "WHERE batch_id = %s AND custom_id = %s AND phase = %s ORDER BY number",
                self.batch_id,
                custom_id,
                phase,
            )
        ]

    def segments(self, custom_id: str) -> list[Row]:
        """``(from_step, to_step, reason)`` of the job's segments, in order."""
        return self.cluster.rows(
            "SELECT from_step, to_step, reason FROM segments s JOIN jobs j ON j.id = s.job_id "
            "WHERE batch_id = %s AND custom_id = %s ORDER BY s.id",
            self.batch_id,
            custom_id,
        )

    def assert_undisturbed(self, undisturbed: Mapping[str, Sums]) -> None:
        """Every job succeeded, once, with one artifact, which is that of an undisturbed run."""
        assert self.count(JobState.SUCCEEDED) == len(self.custom_ids)
        names = {f"{name}{suffix}" for name in self.custom_ids for suffix in (".json", ".mp4")}
        self.wait_delivered()
        assert self._delivered() == names
        ends = self.cluster.value(
            "SELECT count(*) FROM job_events e JOIN jobs j ON j.id = e.job_id "
            "WHERE batch_id = %s AND to_state = 'succeeded'",
            self.batch_id,
        )
        assert ends == len(self.custom_ids)
        for name in self.custom_ids:
            video = (self.out / f"{name}.mp4").read_bytes()
            stored = (self.cluster.home.store / self.job(name)["artifact_key"]).read_bytes()
            assert video == stored
            assert Sums.of(self.manifest(name)) == undisturbed[name]
            assert hashlib.sha256(video).hexdigest() == undisturbed[name].video

    def _delivered(self) -> set[str]:
        return {path.name for path in self.out.glob("*")}

    def manifest(self, custom_id: str) -> dict[str, Any]:
        """The manifest that lies beside the delivered video."""
        return dict(json.loads((self.out / f"{custom_id}.json").read_text()))


def _number(service: str) -> int:
    """The 1 of ``dit-1``."""
    return int(service.rpartition("-")[2])
