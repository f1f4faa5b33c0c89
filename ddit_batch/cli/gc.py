"""``ddit gc``: what the artifact store holds and nobody needs any more."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import click

from ddit_batch.artifact import ArtifactStore
from ddit_batch.cli.command import command
from ddit_batch.cli.connection import readable_source
from ddit_batch.cli.duration import Duration
from ddit_batch.cli.options import home_option
from ddit_batch.config import load_settings, require
from ddit_batch.embedded.home import Home
from ddit_batch.environment import database_url
from ddit_batch.garbage import delete, find_garbage

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1000


@command("ddit gc --delete")
@click.option("--delete", "is_delete", is_flag=True, help="Delete them. Without it: list them.")
@click.option(
    "--older",
    "grace_s",
    type=Duration(),
    default="1h",
    show_default=True,
    help="Leave alone what was written since: somebody may be about to name it.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file.")
@home_option
def gc(is_delete: bool, grace_s: float, as_json: bool, home: Home) -> None:
    """Find the files in the artifact store that no job in the database needs.

    They were left by workers that died, by attempts that came too late, and by jobs that were
    cancelled while they waited. What is no file of ddit-batch's is not looked at, nor are the
    videos in your own folders. A store belongs to one database: what only another one names would
    be found here, too.
    """
    store = ArtifactStore(_artifacts_url(home))
    with readable_source(home) as source:
        grace = timedelta(seconds=grace_s)
        found = find_garbage(store, source, now=datetime.now(UTC), grace=grace)
    for file in found.files:
        if as_json:
            what = {"path": file.path, "size_bytes": file.size_bytes}
            click.echo(json.dumps({**what, "written_at": file.written_at.isoformat()}))
        else:
            written = f"{file.written_at.astimezone():%Y-%m-%d %H:%M}"
            click.echo(f"{_shown(file.size_bytes):>9}  {written}  {file.path}")
    if is_delete:
        delete(store, found.files)
    done = "deleted" if is_delete else "not needed; `ddit gc --delete` deletes them"
    younger = f"; {found.too_young} younger ones stay" if found.too_young else ""
    count = f"{len(found.files)} files, {_shown(found.size_bytes)}"
    click.echo(f"{count}, {done}{younger}" if found.files else f"no files{younger}", err=True)


def _artifacts_url(home: Home) -> str:
    """The store that belongs to the database which the command finds."""
    if not database_url():
        return str(home.store)
    settings = load_settings()
    require(settings, "artifacts_url")
    return settings.artifacts_url


def _shown(size_bytes: int) -> str:
    """``3.2 MB``."""
    size, at = float(size_bytes), 0
    while size >= _STEP and at < len(_UNITS) - 1:
        size, at = size / _STEP, at + 1
    return f"{size:.3g} {_UNITS[at]}"
