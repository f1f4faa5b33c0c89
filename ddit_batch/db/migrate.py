"""Bring a database to the schema of this release; ``schema_version.py`` says whether it is."""

from __future__ import annotations

from alembic import command
from alembic.config import Config

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
