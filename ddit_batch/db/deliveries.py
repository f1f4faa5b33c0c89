"""Which successes still lack the files under the user's names."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select, update

from ddit_batch.db.models import Batch, Job
from ddit_batch.job import BatchId, JobId, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What it takes to make the user's files of one job."""

    job_id: JobId
    custom_id: str
    out_url: str
    artifact_key: str
    manifest_key: str
    latents_key: str | None
    """Of no use once they are made."""


class DeliveryStore:
    """Finds deliveries that are due, and notes those that are made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(self, *, older_s: float, limit: int) -> list[Delivery]:
        """Those whose job succeeded more than *older_s* ago, the oldest first."""
        query = (
            select(
                Job.id,
                Job.custom_id,
                Batch.out_url,
                Job.artifact_key,
                Job.manifest_key,
                Job.latents_key,
            )
            .join(Batch, Batch.id == Job.batch_id)
            .where(
                Job.state == JobState.SUCCEEDED,
                Job.delivered_at.is_(None),
                Batch.out_url.is_not(None),
                Job.finished_at
                < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, older_s),
            )
            .order_by(Job.finished_at)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [
                Delivery(
                    job_id=JobId(row.id),
                    custom_id=row.custom_id,
                    out_url=row.out_url,
                    artifact_key=row.artifact_key,
                    manifest_key=row.manifest_key,
                    latents_key=row.latents_key,
                )
                for row in connection.execute(query)
            ]

    def made(self, delivery: Delivery) -> None:
        """The files are there; unless they are wanted elsewhere by now."""
        with self._engine.begin() as connection:
            connection.execute(
                update(Job)
                .where(Job.id == delivery.job_id, Job.batch_id == Batch.id)
                .where(Batch.out_url == delivery.out_url)
                .values(delivered_at=func.clock_timestamp())
            )


def deliver_anew(connection: Connection, batch_id: BatchId, out_url: str) -> None:
    """Before a batch gets *out_url*: if that is another place, its successes are due there too."""
    elsewhere = (
        select(Batch.id).where(Batch.id == batch_id, Batch.out_url.is_distinct_from(out_url))
    ).exists()
    connection.execute(
        update(Job)
        .where(Job.batch_id == batch_id, Job.state == JobState.SUCCEEDED, elsewhere)
        .values(delivered_at=None)
    )
