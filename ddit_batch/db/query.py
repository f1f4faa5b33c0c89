"""Users' own queries: one statement that reads the documented views and can change nothing.

A query runs in a read-only transaction with a time limit, on a connection of its own, which is
closed afterwards with whatever the query did to its session. It is first only described, which
tells several statements and statements without rows from a query, and then runs inside of the
database function ``ddit_read``: that belongs to the role ``ddit_reader``, which has rights on the
views alone, and inside of such a function no role can be set or reset.

``docs/sql.md`` is for the user; the views are in ``migrations/``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import pq, sql

from ddit_batch.db.reading import Source, ask, conninfo_of
from ddit_batch.errors import DditError, RequestError, ServiceError

logger = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""How long a query may take unless told otherwise."""

_GUARD = "ddit_read(text, integer)"
_ONLY_QUERIES = (
    "only one query is run here: SELECT, WITH ... SELECT, VALUES, TABLE, SHOW or EXPLAIN"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What a query gave."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    """Values as Python has them: timestamps are aware, arrays are lists."""
    truncated: bool
    """There were more rows than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewColumn:
    """One column of a view."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A documented view."""

    name: str
    comment: str
    columns: tuple[ViewColumn, ...]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as the description of a statement has it."""

    name: str
    type_oid: int
    type_modifier: int


def run_query(
    source: Source, query: str, *, limit: int, timeout_s: float = TIMEOUT_S
) -> QueryResult:
    """Run *query* in the database of *source*, for at most *limit* rows.

    Where the role ``ddit_reader`` is missing, the query runs with the rights of the source's own
    user, read-only all the same; a warning says so.

    Raises:
        RequestError: It is not one query, is wrong, reads what it may not, would change something,
            or takes longer than *timeout_s*; the message is that of Postgres, with its hint.
        ServiceError: The database does not answer.
    """
    if "\0" in query:
        raise RequestError("the query contains a NUL character")
    try:
        with _read_only(source, timeout_s) as connection:
            guarded = _become_reader(connection)
            columns = _describe(connection, query)
            if guarded:
                rows = _read_guarded(connection, query, columns, limit + 1)
            else:
                rows = _read_unguarded(connection, query, limit + 1)
    except psycopg.Error as exc:
        raise _translated(exc, query, timeout_s) from exc
    return QueryResult(
        columns=tuple(column.name for column in columns),
        rows=tuple(rows[:limit]),
        truncated=len(rows) > limit,
    )


def describe_views(source: Source) -> tuple[View, ...]:
    """The documented views by name, with their columns and comments."""
    rows = ask(
        source,
        """
        SELECT view.relname AS view, obj_description(view.oid, 'pg_class') AS about,
            attribute.attname AS name,
            format_type(attribute.atttypid, attribute.atttypmod) AS type,
            coalesce(col_description(view.oid, attribute.attnum), '') AS comment
        FROM pg_class view JOIN pg_attribute attribute ON attribute.attrelid = view.oid
        WHERE view.relkind = 'v' AND view.relnamespace = current_schema()::regnamespace
            AND obj_description(view.oid, 'pg_class') IS NOT NULL AND attribute.attnum > 0
        ORDER BY view.relname, attribute.attnum
        """,
    )
    views: dict[tuple[str, str], list[ViewColumn]] = {}
    for row in rows:
        column = ViewColumn(name=row["name"], type=row["type"], comment=row["comment"])
        views.setdefault((row["view"], row["about"]), []).append(column)
    return tuple(
        View(name=view, comment=about, columns=tuple(columns))
        for (view, about), columns in views.items()
    )


@contextmanager
def _read_only(source: Source, timeout_s: float) -> Iterator[psycopg.Connection]:
    """A read-only transaction on a connection of its own; nothing of it stays."""
    connection = psycopg.connect(conninfo_of(source))
    try:
        connection.read_only = True
        limit_ms = str(max(1, round(1000 * timeout_s)))
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [limit_ms])
        yield connection
    finally:
        connection.close()


def _describe(connection: psycopg.Connection, query: str) -> tuple[_Column, ...]:
    """The columns that *query* would give; nothing is executed.

    Raises:
        RequestError: It gives no rows, so it is no query.
        psycopg.Error: It is wrong, or more than one statement.
    """
    server = connection.pgconn
    prepared = server.prepare(b"", query.encode(connection.info.encoding))
    described = server.describe_prepared(b"") if _is_done(prepared) else prepared
    if not _is_done(described):
        raise psycopg.errors.error_from_result(described, connection.info.encoding)
    if not described.nfields:
        raise RequestError(_ONLY_QUERIES)
    return tuple(
        _Column(
            (described.fname(n) or b"").decode(connection.info.encoding),
            described.ftype(n),
            described.fmod(n),
        )
        for n in range(described.nfields)
    )


def _is_done(result: pq.abc.PGresult) -> bool:
    return result.status == pq.ExecStatus.COMMAND_OK


def _become_reader(connection: psycopg.Connection) -> bool:
    """Become ``ddit_reader`` for the rest of the transaction. False: that is not possible here."""
    found = connection.execute("SELECT to_regprocedure(%s) IS NOT NULL", [_GUARD]).fetchone()
    if found == (True,):
        try:
            with connection.transaction():
                connection.execute("SET LOCAL ROLE ddit_reader")
        except psycopg.errors.InsufficientPrivilege:
            pass
        else:
            return True
    logger.warning(
        "the query runs with the rights of %s: the role ddit_reader is not usable (docs/sql.md)",
        connection.info.user,
        extra={"action": "query_unguarded"},
    )
    return False


def _read_guarded(
    connection: psycopg.Connection, query: str, columns: tuple[_Column, ...], limit: int
) -> list[tuple[object, ...]]:
    """The first *limit* rows, read inside of the function that cannot be left."""
    types = connection.execute(
        "SELECT format_type(type.oid, given.modifier), type.typtype = 'p' "
        "FROM unnest(%s::oid[], %s::integer[]) WITH ORDINALITY AS given (oid, modifier, number) "
        "JOIN pg_type type ON type.oid = given.oid ORDER BY given.number",
        [[c.type_oid for c in columns], [c.type_modifier for c in columns]],
    ).fetchall()
    for column, (type_, is_pseudo) in zip(columns, types, strict=True):
        if is_pseudo:
            raise RequestError(
                f"column {column.name!r} is of type {type_}, which cannot be shown: cast it to text"
            )
    # Names of ours: those of the query may be equal to one another.
    wanted = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(f"c{n}"), sql.SQL(type_))
        for n, (type_, _) in enumerate(types)
    )
    statement = sql.SQL("SELECT * FROM ddit_read(%s, %s) AS result ({})").format(wanted)
    return connection.execute(statement, [query, limit]).fetchall()


def _read_unguarded(
    connection: psycopg.Connection, query: str, limit: int
) -> list[tuple[object, ...]]:
    """The first *limit* rows, read with the rights of the connection's user."""
    rows: list[tuple[object, ...]] = []
    with connection.cursor() as cursor:
        for row in cursor.stream(query.encode(connection.info.encoding)):
            rows.append(row)
            if len(rows) == limit:
                break
    return rows


def _translated(exc: psycopg.Error, query: str, timeout_s: float) -> DditError:
    """The error for the user: what Postgres says, where, and its hint."""
    said = exc.diag
    if said.message_primary is None or said.severity_nonlocalized == "FATAL":
        return ServiceError(f"the database does not answer: {str(exc).strip()}")
    message = said.message_primary
    match exc:
        case psycopg.errors.QueryCanceled():
            message = f"the query took longer than {timeout_s:g} s and was stopped"
        case psycopg.errors.SyntaxError() if "multiple commands" in message:
            message = f"more than one statement: {_ONLY_QUERIES}"
        case psycopg.errors.InsufficientPrivilege() | psycopg.errors.ReadOnlySqlTransaction():
            message += ": a query reads the views of docs/sql.md and changes nothing"
        case _:
            pass
    if said.statement_position is not None:
        before = query[: int(said.statement_position) - 1]
        column = len(before) - (before.rfind("\n") + 1) + 1
        message += f" (line {before.count(chr(10)) + 1}, column {column})"
    if said.message_detail:
        message += f"\n{said.message_detail}"
    if said.message_hint:
        message += f"\nHint: {said.message_hint}"
    return RequestError(message)
