"""Plain text: one prompt a line. Blanks around a prompt are not part of it.

Pure. What ends a line, and what does not: ``text_bytes.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddit_batch.line_rules import Fault
from ddit_batch.text_bytes import numbered_lines
from ddit_batch.written import Fields

_JSON = re.compile(r'\{\s*"')


def text_lines(data: bytes) -> Iterator[tuple[int, Fields | Fault]]:
    """The prompts of *data* with their line numbers; blank lines are left out."""
    is_empty = True
    for number, line in numbered_lines(data):
        if isinstance(line, Fault):
            is_empty = False
            yield number, line
        elif not line.isspace() and line:
            is_empty = False
            yield number, _prompt(line.removesuffix("\n").removesuffix("\r").strip(" \t"))
    if is_empty:
        rule, cure = "the file holds no prompts", "write one prompt on each line"
        yield 1, Fault(rule=rule, cure=cure, whole_file=True)


def _prompt(text: str) -> Fields | Fault:
    if "\r" in text:
        rule = "has a carriage return in the middle of the line"
        return Fault(rule=rule, cure="end lines with a line feed (LF or CR LF)")
    if _JSON.match(text):
        rule = "is JSON, in a file that is read as plain text"
        return Fault(rule=rule, cure="name the file .jsonl, or give --format jsonl")
    return {"prompt": text}
