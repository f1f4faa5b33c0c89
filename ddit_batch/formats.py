"""The formats of prompt files by name, and which of them a file is in.

Pure. The user chooses a format, or else the file's extension does, or else its first line.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePath

from ddit_batch.csv_file import csv_lines, is_header
from ddit_batch.openai_batch import json_format, openai_lines, own_lines
from ddit_batch.plain_text import text_lines
from ddit_batch.written import Format


class FormatName(StrEnum):
    """What ``--format`` takes."""

    JSONL = "jsonl"
    """One JSON object a line, with our own fields."""
    OPENAI = "openai"
    """The input file of an OpenAI Batch."""
    TEXT = "text"
    """One prompt a line."""
    CSV = "csv"
    """A table with a header line."""


FORMATS: dict[FormatName, Format] = {
    FormatName.JSONL: own_lines,
    FormatName.OPENAI: openai_lines,
    FormatName.TEXT: text_lines,
    FormatName.CSV: csv_lines,
}

_JSON_EXTENSIONS = frozenset({".json", ".jsonl", ".ndjson"})
_TABLE_EXTENSIONS = frozenset({".csv", ".tsv"})
_TEXT_EXTENSIONS = frozenset({".txt"})
_JSON = re.compile(rb"""(?:\xef\xbb\xbf)?\s*(?:\{\s*["'}]|\[\s*[\[{"\]])""")


def format_of(file_name: str, data: bytes) -> Format:
    """The format of a file with this name and content."""
    extension = PurePath(file_name).suffix.lower()
    if extension in _TEXT_EXTENSIONS:
        return text_lines
    if extension in _TABLE_EXTENSIONS:
        return csv_lines
    if extension in _JSON_EXTENSIONS or _JSON.match(data):
        return json_format(data)
    return csv_lines if is_header(data) else text_lines
