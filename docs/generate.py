"""Writes the parts of the docs that the code can produce, between their markers.

    python docs/generate.py           bring the pages up to date
    python docs/generate.py --check   exit 1 if one is stale

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end: NAME -->``; ``PARTS`` says which
function writes NAME.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from ddit_batch.cli import main as ddit

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
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += _commands(command, (*path, name))
        else:
            found.append(((*path, name), command))
    return found


PARTS: Mapping[str, Callable[[], str]] = {
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
