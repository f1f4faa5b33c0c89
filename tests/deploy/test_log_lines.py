from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from ddit_batch.config import LogFormat, Settings, load_settings
from ddit_batch.control import LiveControl
from ddit_batch.db.engine import make_engine
from ddit_batch.dispatch import make_celery
from ddit_batch.errors import ConfigError
from ddit_batch.logs import OUR_LOGGERS, set_up_logging

SECRET = "hunter2-very-secret"
DATABASE_URL = f"postgresql+psycopg://ddit:{SECRET}@127.0.0.1:1/ddit"
BROKER_URL = f"redis://:{SECRET}@127.0.0.1:1/0"

SetUp = Callable[..., io.StringIO]


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetUp]:
    """Set logging up as a process does; returns what it writes to."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, (*OUR_LOGGERS, "alembic"))]
    before = [(logger, logger.level) for logger in loggers], list(root.handlers)

    def prepare(**settings: object) -> io.StringIO:
        written = io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", written)
            set_up_logging(load_settings(**settings), {"worker": "dit-0@unit"})
        return written

    root.handlers = []  # those of pytest go on with what they have
    yield prepare
    levels, root.handlers = before
    for logger, level in levels:
        logger.setLevel(level)
    logging.captureWarnings(capture=False)


def raise_error(message: str) -> None:
    raise ValueError(message)


def test_text_line_has_its_ids_behind_the_sentence(set_up: SetUp) -> None:
    """One line an event, the traceback below it."""
    written = set_up()
    logger = logging.getLogger("workers.attempt")

    logger.info("claimed", extra={"action": "claimed", "job_id": "b1-000001"})
    try:
        raise_error("what it was")
    except ValueError:
        logger.exception("attempt failed", extra={"job_id": "b1-000001"})

    first, second, *rest = written.getvalue().splitlines()
    assert first.endswith(" INFO workers.attempt claimed action=claimed job_id=b1-000001")
    assert second.endswith(" ERROR workers.attempt attempt failed job_id=b1-000001")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: what it was"


def test_json_line_has_its_ids_as_fields(set_up: SetUp) -> None:
    """One object a line, whatever is in it."""
    written = set_up(log_format="json")
    logger = logging.getLogger("workers.attempt")

    logger.info("claimed %s", "it", extra={"action": "claimed", "attempt": 2, "phase": "dit"})
    try:
        raise_error("two\nlines")
    except ValueError:
        logger.exception("attempt failed")

    claimed, failed = map(json.loads, written.getvalue().splitlines())
    assert claimed.pop("at").endswith("+00:00")
    assert claimed == {
        "level": "INFO",
        "logger": "workers.attempt",
        "message": "claimed it",
        "worker": "dit-0@unit",
        "action": "claimed",
        "attempt": 2,
        "phase": "dit",
    }
    assert failed["traceback"].endswith("ValueError: two\nlines")


def test_level_is_for_our_loggers_and_libraries_stay_at_info(set_up: SetUp) -> None:
    """What libraries say at DEBUG nobody has read for secrets."""
    written = set_up(log_level="DEBUG")

    logging.getLogger("ddit_batch.scheduler").debug("ours")
    logging.getLogger("kombu").debug("theirs")
    logging.getLogger("kombu").info("theirs, of note")

    assert [line.rpartition(" ")[2] for line in written.getvalue().splitlines()] == ["ours", "note"]


def test_level_quietens_everything(set_up: SetUp) -> None:
    """``ERROR`` hides warnings, also those of libraries."""
    written = set_up(log_level="ERROR")

    logging.getLogger("workers.lease").warning("late")
    logging.getLogger("kombu").warning("late")

    assert written.getvalue() == ""


@pytest.mark.parametrize("log_format", LogFormat)
def test_password_in_a_url_reaches_no_line(set_up: SetUp, log_format: LogFormat) -> None:
    """Not in the sentence, not in a field, not in a traceback."""
    written = set_up(log_format=log_format)
    logger = logging.getLogger("somebody.else")

    logger.info("Connected to %s", BROKER_URL, extra={"url": DATABASE_URL})
    try:
        raise_error(f"no such database: {DATABASE_URL}")
    except ValueError:
        logger.exception("failed")

    assert SECRET not in written.getvalue()
    assert "redis://:***@127.0.0.1:1/0" in written.getvalue()
    assert "postgresql+psycopg://ddit:***@127.0.0.1:1/ddit" in written.getvalue()


def test_services_that_are_away_are_named_without_their_passwords() -> None:
    """Errors of the database and the broker, as a log or a user sees them."""
    engine = make_engine(DATABASE_URL)
    control = LiveControl(BROKER_URL)

    with pytest.raises(OperationalError) as sql_error, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with pytest.raises(psycopg.OperationalError) as lock_error:
        psycopg.connect(DATABASE_URL.replace("+psycopg", ""))
    with pytest.raises(redis.RedisError) as broker_error:
        control.ping()

    for error in (sql_error, lock_error, broker_error):
        assert SECRET not in f"{error.value} {error.value!r}"


def test_no_repr_tells_a_password() -> None:
    """Of the settings, and of what is made from them."""
    settings = load_settings(database_url=DATABASE_URL, broker_url=BROKER_URL)
    app = make_celery(BROKER_URL)
    control = LiveControl(BROKER_URL)

    shown = [
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(make_engine(DATABASE_URL)),
        repr(app),
        app.connection().as_uri(),
        app.conf.humanize(with_defaults=False),
        repr(control),
        repr(control._redis),
    ]

    assert SECRET not in "\n".join(shown)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DDIT_DATABASE_URL", f"postgresql+psycopg://ddit:{SECRET}/x@postgres/ddit"),
        ("DDIT_BROKER_URL", f"redis://:{SECRET}#x@valkey:6379/0"),
    ],
)
def test_url_that_is_none_is_refused_without_being_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A password with a slash in it is the usual cause; the message has the cure."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigError, match=f"{variable}: not a URL; in a password write @") as error:
        load_settings()

    assert SECRET not in str(error.value)
    assert SECRET not in str(error.value.__cause__)


def test_wrong_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the variable, the value and what is possible."""
    monkeypatch.setenv("DDIT_LOG_LEVEL", "LOUD")

    with pytest.raises(ConfigError, match=r"DDIT_LOG_LEVEL: .*'DEBUG'.* \(found 'LOUD'\)"):
        load_settings()


def test_every_setting_has_a_description() -> None:
    """It becomes the table of the docs."""
    assert all(field.description for field in Settings.model_fields.values())
