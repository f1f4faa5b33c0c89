"""Writes the parts of the docs that the code can produce, between their markers.

    python docs/generate.py           bring the pages up to date
    python docs/generate.py --check   exit 1 if one is stale

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``; ``PARTS`` says which
function writes NAME.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import cost_model_page
import explain_page
import faults_page
import input_page
import operations_page

from ddit_batch import causes, lifecycle_docs
from ddit_batch.cli import main as ddit
from ddit_batch.db.engine import make_engine
from ddit_batch.db.migrate import upgrade
from ddit_batch.db.query import View, describe_views
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres

DOCS = Path(__file__).parent


def command_help() -> str:
    """The help of every command, as ``ddit COMMAND --help`` prints it, users' commands first."""
    pages = []
    for path, command in _commands(ddit, ("ddit",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=90)
        pages.append(f"## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(pages)


def _commands(
    group: click.Group, path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


def views() -> str:
    """The comments of the views and their columns, from a database that is made for it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_postgres(Home(Path(folder))) as postgres,
    ):
        upgrade(postgres.service.url)
        engine = make_engine(postgres.service.url)
        found = describe_views(engine)
        engine.dispose()
    return "\n".join(map(_view_section, found))


def _view_section(view: View) -> str:
    lines = [f"### `{view.name}`", "", view.comment, "", "| column | type | |", "|---|---|---|"]
    lines += [f"| `{c.name}` | {c.type} | {c.comment} |" for c in view.columns]
    return "\n".join(lines) + "\n"


PARTS: Mapping[str, Callable[[], str]] = {
    "state diagram": lifecycle_docs.state_diagram,
    "states": lifecycle_docs.state_table,
    "triggers": lifecycle_docs.trigger_table,
    "causes": causes.cause_table,
    "views": views,
    **input_page.PARTS,
    **operations_page.PARTS,
    **cost_model_page.PARTS,
    **explain_page.PARTS,
    **faults_page.PARTS,
    "command help": command_help,
}


def filled(page: str) -> str:
    """*page* with the text between each pair of markers made anew."""

    def fill(match: re.Match[str]) -> str:
        begin, name, end = match["begin"], match["name"], match["end"]
        return f"{begin}\n{PARTS[name]().rstrip()}\n{end}"

    return re.sub(
        r"(?P<begin><!-- generated: (?P<name>[^>]+) -->)\n.*?(?P<end><!-- end: (?P=name) -->)",
        fill,
        page,
        flags=re.DOTALL,
    )


def main() -> None:
    """Write, or check, every page that has a marker."""
    stale = []
    for file in sorted(DOCS.glob("*.md")):
        page = file.read_text("utf-8")
        new = filled(page)
        if new != page:
            stale.append(file.name)
            if "--check" not in sys.argv:
                file.write_text(new, "utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}: run `python docs/generate.py`")


if __name__ == "__main__":
    main()
