"""CSV: a table whose header names our fields, or the words of other tools for them.

Pure. Quoting is that of RFC 4180, so a prompt may run over several lines; a row is numbered by the
line on which it begins. The delimiter is the comma, semicolon or tab that the header has. An empty
cell is a field that is not given; blanks around a cell are not part of it. A column
``metadata.KEY`` gives one pair of the metadata. A wrong header or an open quote puts the whole file
in doubt, and is answered by itself.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddit_batch.line_aliases import ALIASES, FIELDS, advice
from ddit_batch.line_rules import Fault, as_number, shown, shown_name
from ddit_batch.text_bytes import decoded, no_text
from ddit_batch.written import Fields, Written

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
_METADATA = "metadata"
_PAIR = f"{_METADATA}."
_TEXTS = frozenset({"custom_id", "model", "prompt", "negative_prompt"})
_BLANKS = " \t\r\n"
_NAME = re.compile(r"[a-z_][a-z0-9_.-]*", re.ASCII | re.IGNORECASE)
_HEADER_BYTES = 1 << 16
_NO_PROMPTS = Fault(
    rule="the file holds no prompts", cure="write one row for each prompt", whole_file=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """What the cells of a column mean."""

    name: str
    """As the header has it."""
    field: str
    """Ours; ``metadata.KEY`` for a pair of the metadata; empty if the header has no name here."""


def csv_lines(data: bytes) -> Iterator[tuple[int, Fields | Fault]]:
    """The rows of *data*, each under the number of its first line; blank rows are left out."""
    if fault := no_text(data):
        yield 1, fault
        return
    delimiter = _delimiter(_first_line(data))
    rows = (row for row in _rows(data, delimiter) if not _is_blank(row[1]))
    number, header = next(rows, (1, _NO_PROMPTS))
    columns, faults = ((), [header]) if isinstance(header, Fault) else _columns(header)
    for fault in faults:
        yield number, dataclasses.replace(fault, whole_file=True)
    if faults:
        return
    is_empty = True
    for row_number, row in rows:
        is_empty = False
        yield row_number, row if isinstance(row, Fault) else _fields(row, columns, delimiter)
    if is_empty:
        yield number, _NO_PROMPTS


def is_header(data: bytes) -> bool:
    """Whether *data*, whose name does not tell, begins with the header of a CSV file."""
    line = _first_line(data)
    cells = _cells(line, _delimiter(line))
    names = all(_NAME.fullmatch(cell) for cell in cells)
    return names and any(_field_of(cell) == "prompt" for cell in cells)


def _first_line(data: bytes) -> str:
    """The first line that is not blank, as far as it can be read."""
    start = data[:_HEADER_BYTES].decode(errors="replace").lstrip(f"\ufeff{_BLANKS}")
    return start.partition("\n")[0].rstrip("\r")


def _delimiter(header: str) -> str:
    """The delimiter by which most of *header* makes sense."""

    def sense(delimiter: str) -> tuple[int, int]:
        cells = _cells(header, delimiter)
        return sum(1 for cell in cells if _field_of(cell)), len(cells)

    return max(DELIMITERS, key=sense)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _field_of(name: str) -> str:
    """The field that a column called *name* gives; empty if there is none."""
    stripped = name.strip(_BLANKS)
    if stripped.lower().startswith(_PAIR):
        return _PAIR + stripped[len(_PAIR) :]
    plain = stripped.lower().replace("-", "_").replace(" ", "_")
    field = plain if plain in FIELDS else ALIASES.get(plain, "")
    return "" if field == _METADATA else field


def _columns(header: Sequence[str]) -> tuple[tuple[_Column, ...], list[Fault]]:
    """What the columns mean, and all that is wrong with them."""
    columns: dict[str, _Column] = {}
    faults: list[Fault] = []
    for position, name in enumerate(cell.strip(_BLANKS) for cell in header):
        field = _field_of(name)
        if name and not field:
            faults.append(_unknown_column(name))
        elif field in columns:
            first = columns[field].name
            rule = f"means {field}, as the column {shown(first)} does"
            faults.append(Fault(field=shown_name(name), rule=rule, cure="keep one of them"))
        else:
            columns[field or str(position)] = _Column(name=name, field=field)
    if "prompt" not in columns:
        found = shown(", ".join(header))
        rule = f"the header has no column prompt or text: it is {found}"
        faults = [Fault(rule=rule, cure="begin the file with a line such as prompt,seed")]
    return tuple(columns.values()), faults


def _unknown_column(name: str) -> Fault:
    if name.lower() == _METADATA or ALIASES.get(name.lower()) == _METADATA:
        cure = f"give each pair a column of its own, such as {_PAIR}scene"
    else:
        key = name if _NAME.fullmatch(name) else "KEY"
        cure = advice(name) or f"remove the column, or keep it as {_PAIR}{key}"
    return Fault(
        field=shown_name(name),
        rule="is no column that is known",
        cure=cure,
        code="unknown_parameter",
    )


@dataclass(slots=True)
class _Lines:
    """The lines of a file for the csv module, and what it must know about those of one row."""

    data: bytes
    quotes: int = 0
    fault: Fault | None = None

    def start_row(self) -> None:
        """Forget the lines so far."""
        self.quotes, self.fault = 0, None

    def __iter__(self) -> Iterator[str]:
        offset = 0
        for raw in io.BytesIO(self.data):
            line = decoded(raw, offset)
            offset += len(raw)
            self.quotes += raw.count(b'"')
            if isinstance(line, Fault):
                self.fault = self.fault or line
                line = raw.decode(errors="replace")
            yield line


def _rows(data: bytes, delimiter: str) -> Iterator[tuple[int, list[str] | Fault]]:
    """The rows, blank ones too; after a quote that is never closed, no more."""
    lines = _Lines(data)
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        number = reader.line_num + 1
        lines.start_row()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            fault = _quoting_fault(exc, quotes=lines.quotes)
            yield number, fault
            if fault.whole_file:
                return
        else:
            yield number, lines.fault or row


def _quoting_fault(exc: csv.Error, *, quotes: int) -> Fault:
    """What is wrong with a row of so many *quotes* that the csv module cannot read.

    Where a quote may be open at the end of the row, nobody can tell where the next one begins.
    """
    reason, in_doubt = str(exc), False
    if "unexpected end" in reason or "larger than" in reason:
        rule, in_doubt = "opens a quote that is never closed", True
        cure = "close it; write a quote inside a quoted cell twice"
    elif "expected after" in reason:
        rule, in_doubt = "has text after the closing quote of a cell", quotes % 2 == 1
        cure = "write a quote inside a quoted cell twice"
    elif "new-line" in reason:
        rule = "has a carriage return in the middle of the line"
        cure = "end lines with a line feed (LF or CR LF)"
    else:
        rule, cure = f"is not CSV: {reason}", "quote cells as RFC 4180 says"
    return Fault(rule=rule, cure=cure, whole_file=in_doubt)


def _is_blank(row: list[str] | Fault) -> bool:
    return not isinstance(row, Fault) and not any(map(str.strip, row))


def _fields(row: Sequence[str], columns: Sequence[_Column], delimiter: str) -> Fields | Fault:
    """The fields of one row."""
    if len(row) != len(columns):
        more = f"put a cell that holds {DELIMITERS[delimiter]} into double quotes"
        cure = more if len(row) > len(columns) else "write every cell, if need be an empty one"
        return Fault(rule=f"has {len(row)} cells, but the header {len(columns)}", cure=cure)
    fields: Fields = {}
    pairs: dict[str, str] = {}
    for position, (cell, column) in enumerate(zip(row, columns, strict=True), start=1):
        text, field = cell.strip(_BLANKS), column.field
        if not text and field != "prompt":
            continue
        if not field:
            rule = f"has a value in column {position}, which has no name"
            fields[f"column.{position}"] = Fault(rule=rule, cure="name the column, or empty it")
        elif field.startswith(_PAIR):
            pairs[field.removeprefix(_PAIR)] = text
        else:
            value = text.replace("\r\n", "\n") if field in _TEXTS else as_number(text)
            fields[field] = value if column.name == field else Written(value, column.name)
    return fields | ({_METADATA: pairs} if pairs else {})
