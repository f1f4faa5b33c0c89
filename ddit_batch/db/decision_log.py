"""The bounded log of decisions: what the leading scheduler writes of it. ``decisions.py`` reads it.

A record that is lost costs nobody anything: it is written without waiting for the disk, and the
oldest go when there are too many.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from ddit_batch.decision_record import DecisionRecord, packed
from ddit_batch.errors import LeadershipLost

LONGEST_RECORD_BYTES = 2 * 2**20
"""A longer one is not written: some 100,000 jobs in one snapshot."""

_WRITE = text(
    "INSERT INTO decisions (at, term, policy, jobs, workers, commands, size_bytes, record) "
    "SELECT to_timestamp(:at_s), term, :policy, :jobs, :workers, :commands, :size_bytes, :record "
    "FROM leadership WHERE term = :term FOR SHARE"
)
_PRUNE = text(
    "DELETE FROM decisions WHERE id IN ("
    "  SELECT id FROM ("
    "    SELECT id, at, row_number() OVER newest_first AS number,"
    "      sum(size_bytes) OVER newest_first AS bytes"
    "    FROM decisions WINDOW newest_first AS (ORDER BY id DESC)) AS counted"
    "  WHERE number > :rows OR bytes > :bytes OR at < now() - make_interval(secs => :age_s))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What the log may hold; whichever is reached first. It is held to them now and then."""

    rows: int = 2000
    total_bytes: int = 64 * 2**20
    """Of packed records."""
    age_s: float = 24 * 3600.0


class DecisionLog:
    """The log as the scheduler of one *term* writes it."""

    def __init__(self, engine: Engine, *, term: int, bounds: Bounds | None = None) -> None:
        self._engine = engine
        self._term = term
        self._bounds = bounds or Bounds()

    @property
    def term(self) -> int:
        """The term that it is written under."""
        return self._term

    def write(self, record: DecisionRecord) -> bool:
        """Add a record. False: it is too long for the log.

        Raises:
            LeadershipLost: The term is over; nothing was written.
        """
        data = packed(record)
        if len(data) > LONGEST_RECORD_BYTES:
            return False
        with self._engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            written = connection.execute(
                _WRITE,
                {
                    "at_s": record.at_s,
                    "term": self._term,
                    "policy": record.policy,
                    "jobs": len(record.snapshot.jobs),
                    "workers": len(record.snapshot.workers),
                    "commands": len(record.commands),
                    "size_bytes": len(data),
                    "record": data,
                },
                execution_options={"preserve_rowcount": True},
            )
            if not written.rowcount:
                raise LeadershipLost(f"term {self._term} is over: another scheduler leads")
        return True

    def prune(self) -> int:
        """Delete what is beyond the bounds, the oldest first; returns how many records went."""
        with self._engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            deleted = connection.execute(
                _PRUNE,
                {
                    "rows": self._bounds.rows,
                    "bytes": self._bounds.total_bytes,
                    "age_s": self._bounds.age_s,
                },
            )
            return int(deleted.rowcount)
