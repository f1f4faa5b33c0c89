"""Looking at a database with as little as possible in between.

SQLAlchemy's import takes longer than most answers. So a command that only looks has a
:class:`Database`, which is psycopg alone; who has an engine anyway asks the same through that, and
gets the errors that ``persist`` knows. Queries are in psycopg's form: ``%(name)s`` is a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias

import psycopg
from psycopg.rows import dict_row

if TYPE_CHECKING:
    from sqlalchemy import Engine

_WORD = r"(?:[\w.~-]|%[0-9A-Fa-f]{2})"
_PLAIN_URL = re.compile(
    r"postgresql\+psycopg(?P<rest>://"
    rf"(?:{_WORD}+(?::{_WORD}*)?@)?[\w.-]*(?::\d+)?/{_WORD}+"
    rf"(?:\?host=(?:{_WORD}|/)+&port=\d+|\?sslmode=[a-z-]+)?)",
    re.ASCII,
)
"""The URLs that mean the same to SQLAlchemy and, without the driver's name, to libpq: with a host,
or with the folder of a socket, as the embedded cluster has it."""
_AT_ONCE = 1000

Row: TypeAlias = dict[str, Any]
"""A row by the names of its columns."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database that is only looked at."""

    conninfo: str = field(repr=False)
    """Its address as libpq takes it, with the password."""
    connection: psycopg.Connection
    """Between two questions it is in no transaction."""


Source: TypeAlias = "Database | Engine"
"""What can be asked."""


def plain_conninfo(url: str) -> str | None:
    """*url*, which is written as SQLAlchemy does, as libpq takes it; None if that is not plain."""
    plain = _PLAIN_URL.fullmatch(url)
    return plain and f"postgresql{plain['rest']}"


@contextmanager
def open_source(url: str) -> Iterator[Source]:
    """The database at *url*, which is written as SQLAlchemy does, for the length of the block.

    A plain URL gives a :class:`Database`. All others are SQLAlchemy's matter, which knows them.
    """
    conninfo = plain_conninfo(url)
    if conninfo is None:
        from ddit_batch.db.engine import make_engine  # noqa: PLC0415 -- slow, and rarely needed

        engine = make_engine(url)
        try:
            yield engine
        finally:
            engine.dispose()
        return
    with closing(psycopg.connect(conninfo)) as connection:
        connection.read_only = True
        yield Database(conninfo, connection)


def conninfo_of(source: Source) -> str:
    """The address of *source* as libpq takes it."""
    if isinstance(source, Database):
        return source.conninfo
    return source.url.set(drivername="postgresql").render_as_string(hide_password=False)


def ask(source: Source, query: LiteralString, **given: object) -> list[Row]:
    """All rows that *query* gives."""
    if isinstance(source, Database):
        with (
            source.connection.transaction(),
            source.connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(query, given).fetchall()
    with source.connect() as connection:
        return [row._asdict() for row in connection.exec_driver_sql(query, given)]


def stream(source: Source, query: LiteralString, **given: object) -> Iterator[Row]:
    """The rows that *query* gives, a few at a time."""
    if isinstance(source, Database):
        with (
            source.connection.transaction(),
            source.connection.cursor("rows", row_factory=dict_row) as cursor,
        ):
            cursor.itersize = _AT_ONCE
            yield from cursor.execute(query, given)
        return
    with (
        source.connect().execution_options(yield_per=_AT_ONCE) as connection,
        connection.exec_driver_sql(query, given) as rows,
    ):
        for row in rows:
            yield row._asdict()
