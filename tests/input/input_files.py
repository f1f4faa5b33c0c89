"""Short ways to read a file of any format, for the tests of formats and of the command."""

from __future__ import annotations

import re

from prompt_files import MODELS

from ddit_batch.formats import format_of
from ddit_batch.prompt_file import ParsedFile, parse


def read(data: bytes | str, name: str) -> ParsedFile:
    """What *data* gives, as a file called *name*, when lines are for the small model."""
    data = data.encode() if isinstance(data, str) else data
    return parse(
        data,
        file_name=name,
        models=MODELS,
        default_model="small",
        lines=format_of(name, data),
    )


def answers(data: bytes | str, name: str) -> list[str]:
    """What is said about *data*, without the file's name."""
    return [str(problem).removeprefix(f"{name}:") for problem in read(data, name).problems]


def cases(table: str) -> list[tuple[str, list[str]]]:
    """The lines of *table*, each with the answers that stand indented below it."""
    found = re.findall(r"^(\S.*)\n((?:    .*\n)+)", table, flags=re.MULTILINE)
    return [(line, _answers(below)) for line, below in found]


def _answers(below: str) -> list[str]:
    """One answer over several lines, or several that begin with a hyphen each."""
    words = " ".join(line.strip() for line in below.splitlines())
    return words.removeprefix("- ").split(" - ")
