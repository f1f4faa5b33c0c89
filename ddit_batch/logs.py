"""How processes log: one line an event, with its ids as ``key=value`` behind the sentence."""

from __future__ import annotations

import logging
import sys

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """The sentence, then whatever was passed in ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and below it the traceback if there is one."""
        line = super().format(record)
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and k != "data"}
        pairs = " ".join(f"{key}={value}" for key, value in extra.items())
        if not pairs:
            return line
        first, newline, rest = line.partition("\n")
        return f"{first} {pairs}{newline}{rest}"


def set_up_logging(level: int = logging.INFO) -> None:
    """Log to stderr from here on, in this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
