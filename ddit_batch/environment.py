"""The environment variables of the settings: their names, and the one that every look needs.

Without pydantic, whose import takes longer than a look at the database. ``config.py`` has all the
settings, and takes from here what the two say alike; a test holds the two readings together.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ddit_batch.errors import ConfigError

PREFIX = "DDIT_"


def variable(field: str) -> str:
    """The environment variable of a field of the settings."""
    return f"{PREFIX}{field.upper()}"


def checked_url(url: str) -> str:
    """*url*, if it is one.

    Raises:
        ValueError: It is none; the message has the usual cause, and nothing of the URL.
    """
    try:
        urlsplit(url).port  # noqa: B018 -- raises for what is no port
    except ValueError:
        raise ValueError(
            "not a URL; in a password write @ : / ? # % as %40 %3A %2F %3F %23 %25"
        ) from None
    return url


def database_url() -> str:
    """``Settings.database_url`` of this process; empty if it is not set.

    Raises:
        ConfigError: It is no URL.
    """
    name = variable("database_url")
    # In letters of any case, as the settings are read.
    given = {key.upper(): value for key, value in os.environ.items()}
    try:
        return checked_url(given.get(name, ""))
    except ValueError as exc:
        raise ConfigError(f"{name}: {exc}") from exc
