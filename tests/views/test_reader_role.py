from __future__ import annotations

import psycopg
import pytest
from farm import Farm
from psycopg import errors
from sqlalchemy import Engine, text

from ddit_batch.db.query import describe_views
from ddit_batch.scheduler.service import LEADER_LOCK

PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def relations(engine: Engine, kinds: str) -> set[str]:
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        f"AND relkind::text = ANY ('{{{kinds}}}')"
    )
    with engine.connect() as connection:
        return set(connection.scalars(text(query)))


def test_every_view_is_documented(engine: Engine) -> None:
    """Each view, and each of its columns, has a comment: one or several sentences."""
    views = describe_views(engine)

    assert {view.name for view in views} == relations(engine, "v")
    for view in views:
        assert view.comment.endswith("."), view.name
        for column in view.columns:
            assert column.comment.endswith("."), f"{view.name}.{column.name}"


def test_views_know_the_lock_of_the_scheduler(engine: Engine) -> None:
    """The number in the view is that of the service."""
    with engine.connect() as connection:
        definition = connection.scalar(text("SELECT pg_get_viewdef('job_status'::regclass)"))

    assert str(LEADER_LOCK) in str(definition)


def test_reader_has_select_on_the_views_and_nothing_on_anything_else(engine: Engine) -> None:
    """By the catalog: every relation, every privilege."""
    views = relations(engine, "v")
    with engine.connect() as connection:
        for relation in relations(engine, "r,p,m,f,v"):
            granted = {
                privilege
                for privilege in PRIVILEGES
                if connection.scalar(
                    text("SELECT has_table_privilege('ddit_reader', :relation, :privilege)"),
                    {"relation": relation, "privilege": privilege},
                )
            }
            assert granted == ({"SELECT"} if relation in views else set()), relation
        for sequence in relations(engine, "S"):
            may = text("SELECT has_sequence_privilege('ddit_reader', :s, 'USAGE, SELECT, UPDATE')")
            assert not connection.scalar(may, {"s": sequence})


def test_reader_is_a_plain_group_role(engine: Engine) -> None:
    """It cannot log in, make anything, or be more than itself."""
    query = text(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, "
        "  has_schema_privilege('ddit_reader', 'public', 'CREATE'), "
        "  EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid) "
        "FROM pg_roles WHERE rolname = 'ddit_reader'"
    )
    with engine.connect() as connection:
        assert set(connection.execute(query).one()) == {False}


def test_reader_reads_every_view_and_no_table(farm: Farm) -> None:
    """By trying."""
    farm.workers()
    farm.submit()
    tables = relations(farm.engine, "r")
    with farm.engine.connect() as connection:
        connection.execute(text("SET ROLE ddit_reader"))
        for view in relations(farm.engine, "v"):
            connection.execute(text(f"SELECT * FROM {view}")).all()
        connection.commit()
        for table in tables:
            with pytest.raises(Exception, match=f"permission denied for table {table}"):
                connection.execute(text(f"SELECT * FROM {table}"))
            connection.rollback()
        connection.invalidate()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO waiting_jobs (job_id) VALUES ('x')",
        "UPDATE waiting_jobs SET state = 'succeeded'",
        "DELETE FROM waiting_jobs",
        "TRUNCATE jobs",
        "DROP VIEW job_status",
        "CREATE TABLE other (a integer)",
        "CREATE VIEW other AS SELECT * FROM jobs",
        "CREATE ROLE other",
        "GRANT SELECT ON jobs TO ddit_reader",
        "SELECT pg_notify('ddit_scheduler', 'x') FROM jobs",
    ],
)
def test_reader_writes_nothing(farm: Farm, statement: str) -> None:
    """Not even where no transaction is read-only."""
    farm.submit()
    url = farm.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE ddit_reader")
        with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
            connection.execute(statement.encode())
        connection.rollback()
