"""A batch whose three jobs have ended, or not, made by the stores that make them in earnest."""

from __future__ import annotations

from sqlalchemy import Engine

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.db.submission import job_id, submit
from ddit_batch.job import BatchId, Incarnation, JobId, Phase, WorkerName, queue_of
from ddit_batch.request import Request


def a_request(line: int) -> Request:
    return Request(
        custom_id=f"clip-{line}",
        line=line,
        model="tiny-wan",
        prompt=f"cat number {line}",
        negative_prompt="",
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=5.0,
        seed=2**32 - line,
        fps=8,
    )


class Driver:
    """Takes jobs through their phases as scheduler and workers do."""

    def __init__(self, engine: Engine) -> None:
        self.store = SchedulerStore(engine, term=begin_term(engine, holder="test"))
        self.claims = ClaimStore(engine)
        leases = LeaseStore(engine, lease_s=60.0)
        self.workers = {phase: _registered(leases, phase) for phase in Phase}

    def claim(self, job: JobId, phase: Phase) -> Claim:
        """Send the job to the worker of *phase*, and have that claim it."""
        snapshot = self.store.snapshot(window=100, may_lose_workers=False)
        view = next(seen for seen in snapshot.jobs if seen.job_id == job)
        worker = WorkerName(f"{phase}-0@host") if phase is Phase.DIT else None
        attempt = view.attempt
        if phase is not Phase.VAE:
            attempt = self.store.open_attempt(view, queue_of(phase, worker)).attempt
        return self.claims.claim(job, phase, attempt, self.workers[phase])

    def succeed(self, job: JobId) -> None:
        """All three phases."""
        self.claims.finish_encode(self.claim(job, Phase.ENCODE), embeddings_key="embeddings/x")
        self.claims.finish_dit(self.claim(job, Phase.DIT), latents_key="latents/x", vae_queue="vae")
        self.claims.finish_vae(
            self.claim(job, Phase.VAE), artifact_key="a/video.mp4", manifest_key="a/manifest.json"
        )

    def fail(self, job: JobId) -> None:
        """A first attempt that another one cannot mend."""
        self.claims.fail(
            self.claim(job, Phase.ENCODE),
            code="out_of_memory",
            message="too large: use a smaller size",
            retryable=False,
            max_failures=3,
        )


def three_jobs(engine: Engine) -> BatchId:
    """Line 1 has succeeded, line 2 has failed, line 3 waits."""
    requests = [a_request(line) for line in (1, 2, 3)]
    submission = submit(engine, requests, content_hash="three", name="three.jsonl", out_url=None)
    driver = Driver(engine)
    driver.succeed(job_id(submission.batch_id, 1))
    driver.fail(job_id(submission.batch_id, 2))
    return submission.batch_id


def _registered(leases: LeaseStore, phase: Phase) -> Incarnation:
    return leases.register(
        WorkerIdentity(
            name=WorkerName(f"{phase}-0@host"),
            phase=phase,
            host="host",
            node="host",
            device="cpu",
            pid=1,
            models=("tiny-wan",),
            version="test",
        )
    )
