"""A small cluster in a database, moved by the package's own stores, for the views to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

from fake_costs import COSTS
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.plans import PlanStore
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.db.submission import job_id, submit
from ddit_batch.job import (
    HELD_STATES,
    PHASE_OF,
    Incarnation,
    JobId,
    JobState,
    Phase,
    WorkerName,
    queue_of,
)
from ddit_batch.policy.static import Static
from ddit_batch.request import Request
from ddit_batch.scheduler.commands import Command
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.scheduler.service import LEADER_LOCK
from ddit_batch.snapshot import JobView, Progress, Snapshot

STEPS = 8
Row = Mapping[str, object]


def request(line: int, **changes: object) -> Request:
    """A small request, as line *line*, with some fields changed."""
    fields: dict[str, object] = {
        "custom_id": f"video-{line}",
        "line": line,
        "model": "tiny-wan",
        "prompt": f"a cat on roof {line}",
        "negative_prompt": "",
        "height": 64,
        "width": 96,
        "num_frames": 9,
        "num_inference_steps": STEPS,
        "guidance_scale": 5.0,
        "seed": line,
        "fps": 8,
    }
    return Request(**{**fields, **changes})  # type: ignore[arg-type]  # a request's own fields


class Farm:
    """Workers, jobs and a scheduler's term in the database of *engine*."""

    def __init__(self, engine: Engine, *, look_ahead: int = 8, decode_backlog: int = 8) -> None:
        self.engine = engine
        self.claims = ClaimStore(engine)
        self.store = SchedulerStore(engine, term=begin_term(engine, holder="test"))
        self.store.publish_limits(look_ahead=look_ahead, decode_backlog=decode_backlog)
        self._limits = Limits(
            look_ahead=look_ahead, decode_backlog=decode_backlog, max_worker_losses=5
        )

    def submit(self, *requests: Request, name: str = "prompts.jsonl") -> list[JobId]:
        """The jobs of a new batch of *requests*, or of one plain request."""
        lines = requests or (request(1),)
        made = submit(self.engine, lines, content_hash=uuid4().hex, name=name, out_url=None)
        return [job_id(made.batch_id, line.line) for line in lines]

    def worker(
        self,
        name: str,
        phase: Phase,
        *,
        models: tuple[str, ...] = ("tiny-wan",),
        lease_s: float = 3600.0,
    ) -> Incarnation:
        """A live worker; with a negative *lease_s* its lease has run out already."""
        return LeaseStore(self.engine, lease_s=lease_s).register(
            WorkerIdentity(
                name=WorkerName(name),
                phase=phase,
                host="gpu-a",
                node="gpu-a",
                device="cuda:0",
                pid=1,
                models=models,
                version="0",
            )
        )

    def workers(self) -> dict[Phase, Incarnation]:
        """One worker of each phase: encode-0, dit-0 and vae-0."""
        return {phase: self.worker(f"{phase}-0@gpu-a", phase) for phase in Phase}

    def snapshot(self) -> Snapshot:
        """What the scheduler sees."""
        return self.store.snapshot(window=1000, may_lose_workers=False)

    def decisions(self) -> tuple[Command, ...]:
        """What the core would do next."""
        return decide(self.snapshot(), Static(costs=COSTS, dop=1), self._limits)

    def view(self, job: JobId) -> JobView:
        """The job as the scheduler sees it."""
        return next(found for found in self.snapshot().jobs if found.job_id == job)

    def send(self, job: JobId, to: str = "dit-0@gpu-a") -> int:
        """Send the job's next phase to its shared queue, or DiT to the worker *to*."""
        view = self.view(job)
        phase = PHASE_OF[view.state]
        queue = queue_of(phase, WorkerName(to) if phase is Phase.DIT else None)
        return self.store.open_attempt(view, queue).attempt

    def claim(self, job: JobId, by: Incarnation, to: str = "dit-0@gpu-a") -> Claim:
        """Have *by* take the job's next phase, sent before if it was not yet."""
        view = self.view(job)
        sent = bool(self.row(job)["dispatched_at"])
        attempt = view.attempt if sent else self.send(job, to)
        return self.claims.claim(job, PHASE_OF[view.state], attempt, by)

    def finish(self, claim: Claim) -> None:
        """The claimed phase done."""
        match claim.phase:
            case Phase.ENCODE:
                self.claims.finish_encode(claim, embeddings_key="embeddings")
            case Phase.DIT:
                self.claims.finish_dit(claim, latents_key="latents", vae_queue="vae")
            case Phase.VAE:
                self.claims.finish_vae(claim, artifact_key="video.mp4", manifest_key="manifest")

    def bring(self, job: JobId, state: JobState, workers: Mapping[Phase, Incarnation]) -> None:
        """Bring a queued job the straight way to a live state, or to ``succeeded``."""
        for phase in Phase:
            if state in PHASE_OF and PHASE_OF[state] is phase and state not in HELD_STATES:
                return
            claim = self.claim(job, workers[phase])
            if state in PHASE_OF and PHASE_OF[state] is phase:
                return
            self.finish(claim)

    def group(
        self, claim: Claim, *workers: str, step: int = 0, reason: str = "grow", done: bool = True
    ) -> int:
        """Have the job go over to *workers*, or only be told to; returns the plan's epoch."""
        names = tuple(map(WorkerName, workers))
        epoch = self.store.open_plan(self.view(claim.job_id), names).epoch
        if done:
            assert PlanStore(self.engine).formed(claim, epoch)
            assert self.claims.change_group(
                claim, epoch=epoch, workers=names, step=step, reason=reason
            )
        return epoch

    def progress(self, claim: Claim, *, step: int, step_s: float) -> None:
        """Have the leader's report of its progress arrive."""
        report = Progress(attempt=claim.attempt, step=step, step_s=step_s)
        self.store.record_progress({claim.job_id: report})

    def lose(self, worker: Incarnation) -> None:
        """Have the worker's lease run out, and the worker be declared lost."""
        self.execute(
            "UPDATE workers SET lease_expires_at = now() - interval '1 s' "
            f"WHERE incarnation = {worker}"
        )
        assert self.store.lose_worker(worker)

    def ask_to_cancel(self, job: JobId) -> None:
        """Have a user ask for the job's end, the workers not knowing yet."""
        self.execute(f"UPDATE jobs SET cancel_requested_at = now() WHERE id = '{job}'")

    def execute(self, statement: str) -> None:
        """Run a statement that no store has."""
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def rows(self, query: str) -> list[Row]:
        """What *query* gives, as the owner of the tables."""
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query)).mappings()]

    def row(self, job: JobId) -> Row:
        """The job's row in its table."""
        (found,) = self.rows(f"SELECT * FROM jobs WHERE id = '{job}'")
        return found

    def status(self, job: JobId) -> Row:
        """The job's row in ``job_status``."""
        (found,) = self.rows(f"SELECT * FROM job_status WHERE job_id = '{job}'")
        return found


def empty(engine: Engine) -> None:
    """Leave no rows, and no limits."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "TRUNCATE decisions, batches, jobs, job_events, attempts, segments, plans, "
                "workers, model_problems RESTART IDENTITY; "
                "UPDATE leadership SET look_ahead = NULL, decode_backlog = NULL"
            )
        )


@contextmanager
def scheduler_running(engine: Engine) -> Iterator[None]:
    """Hold what the scheduler that leads holds."""
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({LEADER_LOCK})"))
        yield
        connection.execute(text(f"SELECT pg_advisory_unlock({LEADER_LOCK})"))
