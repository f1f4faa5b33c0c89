"""The bounded log of decisions: what is read of it. Reads only; ``decision_log.py`` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ddit_batch.db.reading import Source, ask, stream
from ddit_batch.decision_record import DecisionRecord, unpacked, unpacked_text
from ddit_batch.errors import RecordError
from ddit_batch.job import JobId

LOOKED_AT = 200
"""Records that are searched for a job, the newest first; it waits beyond the window if it is in
none of so many."""


def latest_with(
    source: Source, job_id: JobId, *, until: datetime | None = None
) -> DecisionRecord | None:
    """The newest readable record whose snapshot shows the job, made not after *until*.

    None: it is in none of the newest ones.
    """
    # The newest nearly always shows it: the others are not even fetched.
    for first, count in ((0, 1), (1, LOOKED_AT)):
        for data in _newest(source, job_id, until=until, first=first, count=count):
            record = _readable(data, naming=job_id)
            if record and record.job(job_id):
                return record
    return None


def _newest(
    source: Source, job_id: JobId, *, until: datetime | None, first: int, count: int
) -> Iterator[bytes]:
    rows = stream(
        source,
        """
        SELECT record FROM decisions
        WHERE at <= coalesce(%(until)s::timestamptz, 'infinity')
            AND at >= (SELECT created_at FROM jobs WHERE id = %(job_id)s)
        ORDER BY id DESC LIMIT %(count)s OFFSET %(first)s
        """,
        until=until,
        job_id=job_id,
        first=first,
        count=count,
    )
    return (bytes(row["record"]) for row in rows)


def latest(source: Source, *, until: datetime | None = None) -> DecisionRecord | None:
    """The newest record, made not after *until*; None if there is none that can be read."""
    rows = ask(
        source,
        """
        SELECT record FROM decisions WHERE at <= coalesce(%(until)s::timestamptz, 'infinity')
        ORDER BY id DESC LIMIT 1
        """,
        until=until,
    )
    return _readable(bytes(rows[0]["record"])) if rows else None


def records(source: Source) -> Iterator[DecisionRecord]:
    """Every record, the oldest first.

    Raises:
        RecordError: One cannot be read.
    """
    for row in stream(source, "SELECT record FROM decisions ORDER BY id"):
        yield unpacked(bytes(row["record"]))


def _readable(data: bytes, *, naming: str = "") -> DecisionRecord | None:
    """The record, if it can be read and *naming* stands in it."""
    try:
        # To find the text takes a fortieth of the time of making the values.
        return unpacked(data) if naming.encode() in unpacked_text(data) else None
    except RecordError:
        return None  # of another release
