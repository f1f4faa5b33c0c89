"""Whether a database has the schema of this release. Small, because every command asks.

The revisions are the migrations' file names (``0002_views.py``), which Alembic reads as well.
"""

from __future__ import annotations

from ddit_batch.db.reading import Source, ask
from ddit_batch.errors import ConfigError
from ddit_batch.resources import data_folder


def release_revision() -> str:
    """The newest revision among this release's migrations."""
    files = (data_folder("migrations") / "versions").glob("[0-9]*_*.py")
    return max(file.name.partition("_")[0] for file in files)


def check_schema(source: Source) -> None:
    """Check that the database has exactly this release's schema.

    Raises:
        ConfigError: It is older or newer; the message says how to mend it.
    """
    needed = release_revision()
    found = None
    (table,) = ask(source, "SELECT to_regclass('alembic_version') IS NOT NULL AS exists")
    if table["exists"]:
        versions = ask(source, "SELECT version_num FROM alembic_version")
        found = versions[0]["version_num"] if versions else None
    if found != needed:
        raise ConfigError(
            f"the database has schema {found or 'none'}, this release needs {needed}: "
            "run `ddit db upgrade` (or update ddit-batch, if the database is newer)"
        )
