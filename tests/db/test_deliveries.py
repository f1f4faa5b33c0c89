"""A success is due to its user until somebody has said that the files are made."""

from __future__ import annotations

import rows
from sqlalchemy import Engine

from ddit_batch.db.deliveries import Delivery, DeliveryStore
from ddit_batch.db.submission import job_id, submit
from ddit_batch.job import JobId, Phase


def submit_to(engine: Engine, out_url: str | None, lines: int = 1) -> tuple[JobId, ...]:
    """The same batch whenever it is submitted."""
    requests = [rows.a_request(line) for line in range(1, lines + 1)]
    batch = submit(engine, requests, content_hash="one", name="p.jsonl", out_url=out_url)
    return tuple(job_id(batch.batch_id, line) for line in range(1, lines + 1))


def succeed(engine: Engine, job: JobId) -> None:
    """All three phases."""
    for _ in Phase:
        rows.finished(engine, rows.claimed(engine, job))


def due(engine: Engine, *, older_s: float = 0.0, limit: int = 10) -> list[Delivery]:
    return DeliveryStore(engine).due(older_s=older_s, limit=limit)


def test_success_is_due_until_it_is_made(engine: Engine) -> None:
    """And nothing else is."""
    first, second, _ = submit_to(engine, "videos", lines=3)
    for job in (first, second):
        succeed(engine, job)

    deliveries = due(engine)
    DeliveryStore(engine).made(deliveries[0])

    assert deliveries[0] == Delivery(
        job_id=first,
        custom_id="video-1",
        out_url="videos",
        artifact_key="video",
        manifest_key="manifest",
        latents_key="latents-1",
    )
    assert [delivery.job_id for delivery in deliveries] == [first, second]
    assert [delivery.job_id for delivery in due(engine)] == [second]


def test_success_is_its_own_workers_to_deliver_for_a_while(engine: Engine) -> None:
    """The others leave it alone so long; and they take few at once."""
    for job in submit_to(engine, "videos", lines=2):
        succeed(engine, job)

    assert due(engine, older_s=60.0) == []
    assert len(due(engine, limit=1)) == 1


def test_batch_that_wants_no_files_has_nothing_due(engine: Engine) -> None:
    """Until it is submitted again with a place for them."""
    (job,) = submit_to(engine, None)
    succeed(engine, job)
    before = due(engine)

    submit_to(engine, "videos")

    assert before == []
    assert [delivery.out_url for delivery in due(engine)] == ["videos"]


def test_what_has_succeeded_is_due_at_a_new_place(engine: Engine) -> None:
    """Not at the old one again, and a delivery to the old place does not count for the new."""
    (job,) = submit_to(engine, "here")
    succeed(engine, job)
    (old,) = due(engine)
    DeliveryStore(engine).made(old)
    submit_to(engine, "here")
    unchanged = due(engine)

    submit_to(engine, "there")
    DeliveryStore(engine).made(old)

    assert unchanged == []
    assert [delivery.out_url for delivery in due(engine)] == ["there"]
