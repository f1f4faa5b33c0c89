"""Users' own queries."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What a query gave."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def run_query(engine: Engine, sql: str, *, limit: int) -> QueryResult:
    """Run *sql*."""
    with engine.connect() as connection:
        found = connection.execute(text(sql))
        rows = tuple(tuple(row) for row in found.fetchmany(limit))
        return QueryResult(columns=tuple(found.keys()), rows=rows)
