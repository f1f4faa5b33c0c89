"""From the bytes of a file to the text of its lines: what all formats of prompt files share.

Pure. A line ends with LF or CR LF and with nothing else: U+2028, form feed and their like are
characters of a prompt. Accepted without a word: a byte order mark, CR LF, a last line without its
end.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from ddit_batch.line_rules import Fault

BOM = "\ufeff"
_NO_TEXT = {
    b"\xff\xfe": ("UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8"),
    b"PK\x03\x04": ("a spreadsheet or a zip file", "export it as CSV, or unpack it"),
    b"\x1f\x8b": ("compressed", "pipe it in: `gunzip -c FILE | ddit submit -`"),
    b"PAR1": ("a Parquet file", "export it as CSV or JSON Lines"),
}
CUT_OFF = Fault(
    rule="is cut off: the file ends in the middle of the line",
    cure="copy the file again, or finish the line",
)


def no_text(data: bytes) -> Fault | None:
    """Why *data* is no text at all; None if it may be."""
    for first_bytes, (what, cure) in _NO_TEXT.items():
        if data.startswith(first_bytes):
            return Fault(rule=f"the file is {what}", cure=cure, whole_file=True)
    return None


def numbered_lines(data: bytes) -> Iterator[tuple[int, str | Fault]]:
    """The lines of *data* with their numbers, from 1: text with its line end, or why there is none.

    A file that is no text at all gives one fault.
    """
    if fault := no_text(data):
        yield 1, fault
        return
    offset = 0
    for number, raw in enumerate(io.BytesIO(data), start=1):
        yield number, decoded(raw, offset)
        offset += len(raw)


def is_cut_off(line: str) -> bool:
    """Whether *line*, with its end, is a last line that may go on: it has no end."""
    return not line.endswith("\n")


def decoded(raw: bytes, offset: int) -> str | Fault:
    """The text of the line at byte *offset*, without byte order marks before it."""
    try:
        return raw.decode().lstrip(BOM)
    except UnicodeDecodeError as exc:
        if exc.reason == "unexpected end of data" and not raw.endswith(b"\n"):
            return CUT_OFF
        return Fault(
            rule=f"is not UTF-8: byte 0x{raw[exc.start]:02x} at offset {offset + exc.start}",
            cure="save the file as UTF-8",
        )
