"""How processes log: one line an event, with its ids as fields behind the sentence.

As text, ``2026-11-02 10:15:00,123 INFO workers.attempt claimed action=claimed job_id=b1-000004``.
As JSON, an object with ``at``, ``level``, ``logger``, ``message``, the same fields, and what is
the same for all lines of the process. A job's id begins with its batch's. Passwords in URLs never
reach a line, whoever logs them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from ddit_batch.config import LogFormat, Settings

OUR_LOGGERS = ("ddit_batch", "workers")

_NOT_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CELERYS_OWN = frozenset({"data"})
"""What Celery passes in ``extra`` repeats the sentence."""
_PASSWORD = re.compile(r"""(?<=://)([^\s:/@]*):[^\s"']*@""")
_NOTHING: Mapping[str, object] = MappingProxyType({})


class TextFormatter(logging.Formatter):
    """The sentence, then whatever was passed in ``extra``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if there is one."""
        pairs = "".join(f" {key}={value}" for key, value in _fields(record).items())
        first, newline, rest = super().format(record).partition("\n")
        return without_passwords(f"{first}{pairs}{newline}{rest}")


class JsonFormatter(logging.Formatter):
    """One object a line; *context* stands in each of them."""

    def __init__(self, context: Mapping[str, object]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        """One line, also with a traceback in it."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return without_passwords(json.dumps(line, default=str, ensure_ascii=False))


def without_passwords(line: str) -> str:
    """*line* with the password of every URL in it masked."""
    return _PASSWORD.sub(r"\1:***@", line)


def set_up_logging(settings: Settings, context: Mapping[str, object] = _NOTHING) -> None:
    """Log to stderr from here on, in this process; *context* names it in JSON lines."""
    as_json = settings.log_format is LogFormat.JSON
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(context) if as_json else TextFormatter())
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler], force=True)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger("alembic").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = vars(record).items()
    return {key: value for key, value in given if key not in _NOT_FIELDS | _CELERYS_OWN}
