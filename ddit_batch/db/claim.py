"""A job as its holder has it: what a claim gives to a worker, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from ddit_batch.db.models import Batch, Job
from ddit_batch.db.moves import Belief
from ddit_batch.job import WORKING_STATE, Incarnation, JobId, Phase
from ddit_batch.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job as its new holder gets it, with what the phase needs."""

    job_id: JobId
    phase: Phase
    attempt: int
    incarnation: Incarnation
    request: Request
    embeddings_key: str | None
    checkpoint_key: str | None
    older_checkpoint_key: str | None
    """The checkpoint before, to go back to if the newest cannot be read."""
    latents_key: str | None
    failures: int
    store_failures: int
    out_url: str | None
    """Where the batch's videos appear under the user's names; None: only in the store."""

    @property
    def belief(self) -> Belief:
        """The compare part of everything that the holder writes."""
        return Belief(
            job_id=self.job_id,
            state=WORKING_STATE[self.phase],
            attempt=self.attempt,
            holder=self.incarnation,
        )


def read_claim(
    connection: Connection, job_id: JobId, phase: Phase, attempt: int, incarnation: Incarnation
) -> Claim:
    """What *incarnation*, which holds the job for *phase* as *attempt*, needs of it."""
    row = connection.execute(
        select(
            Job.request,
            Job.embeddings_key,
            Job.checkpoint_key,
            Job.older_checkpoint_key,
            Job.latents_key,
            Job.failures,
            Job.store_failures,
            Batch.out_url,
        )
        .join(Batch, Batch.id == Job.batch_id)
        .where(Job.id == job_id)
    ).one()
    return Claim(
        job_id=job_id,
        phase=phase,
        attempt=attempt,
        incarnation=incarnation,
        request=Request.from_json(row.request),
        embeddings_key=row.embeddings_key,
        checkpoint_key=row.checkpoint_key,
        older_checkpoint_key=row.older_checkpoint_key,
        latents_key=row.latents_key,
        failures=row.failures,
        store_failures=row.store_failures,
        out_url=row.out_url,
    )
