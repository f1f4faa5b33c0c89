"""Bring a database to the schema of this release."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from ddit_batch.errors import ConfigError
from ddit_batch.resources import data_folder


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(data_folder("migrations")))
    return config


def upgrade(database_url: str) -> None:
    """Run all migrations that the database lacks. Safe to run from several processes at once."""
    config = _config()
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def check_schema(engine: Engine) -> None:
    """Check that the database has exactly this release's schema.

    Raises:
        ConfigError: It is older or newer; the message says how to mend it.
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current != head:
        raise ConfigError(
            f"the database has schema {current or 'none'}, this release needs {head}: "
            "run `ddit db upgrade` (or update ddit-batch, if the database is newer)"
        )
