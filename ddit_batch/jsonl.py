"""JSON Lines: bytes become the objects that they hold, line by line. One format of prompt files.

Pure, and ignorant of what the fields mean. A format is a function from the bytes of a file to pairs
of a line number and either the line's fields or a ``Fault``; another format is another such
function, passed to ``prompt_file.parse``. A format never raises for what the bytes hold.

Accepted without a word: a byte order mark, CRLF, blank lines, a last line without its end.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator

from ddit_batch.line_rules import Fault, kind, shown

_BOM = "\ufeff"
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*([^\s][^\n]*)")
# The first line opens an object and goes on with a text in the next.
_OPEN_OBJECT = re.compile(rb'\{(?:[^\n]*[,{\[])?[^\S\n]*\n\s*"')
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ONE_A_LINE = "write one object a line: `jq -c '.[]' FILE` turns an array into lines"
_ONE_LINE = "write each object on a single line: `jq -c . FILE` does it"
_EXAMPLE = 'write {"prompt": "..."}'
_CUT_OFF = Fault(
    rule="is cut off: the file ends in the middle of the line",
    cure="copy the file again, or finish the line",
)


def jsonl_lines(data: bytes) -> Iterator[tuple[int, dict[str, object] | Fault]]:
    """The lines of *data* with their numbers, from 1; blank lines are left out.

    A line with a repeated key comes twice: once as a ``Fault``, and once with its fields, so that
    their faults are found as well.
    """
    if whole_file := _not_json_lines(data):
        yield whole_file
        return
    repeated: dict[str, None] = {}
    decoder = json.JSONDecoder(object_pairs_hook=_ObjectMaker(repeated))
    offset = 0
    for number, raw in enumerate(io.BytesIO(data), start=1):
        if raw.strip():
            found = _line(raw, offset, decoder)
            if found is not None:
                for key in repeated:
                    yield number, _repeated_key(key)
                yield number, found
            repeated.clear()
        offset += len(raw)


class _ObjectMaker:
    """Makes a dict of a JSON object's pairs, and notes the keys that came more than once."""

    def __init__(self, repeated: dict[str, None]) -> None:
        self._repeated = repeated

    def __call__(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            self._repeated.update((key, None) for key, count in counts.items() if count > 1)
        return made


def _line(raw: bytes, offset: int, decoder: json.JSONDecoder) -> dict[str, object] | Fault | None:
    """The fields of one line that starts at byte *offset*; None if it is blank after all."""
    last = not raw.endswith(b"\n")
    try:
        text = raw.decode().lstrip(_BOM).strip()
    except UnicodeDecodeError as exc:
        if last and exc.reason == "unexpected end of data":
            return _CUT_OFF
        return Fault(
            rule=f"is not UTF-8: byte 0x{raw[exc.start]:02x} at offset {offset + exc.start}",
            cure="save the file as UTF-8",
        )
    return _fields(text, decoder, last=last) if text else None


def _fields(text: str, decoder: json.JSONDecoder, *, last: bool) -> dict[str, object] | Fault:
    """The fields that *text* holds; *last* if it is a last line without its end."""
    try:
        fields = decoder.decode(text)
    except json.JSONDecodeError as exc:
        return _CUT_OFF if last and _ends_early(text, exc) else _invalid_json(text, exc)
    except ValueError:
        return Fault(rule="holds a number with too many digits to read", cure="shorten it")
    except RecursionError:
        return Fault(rule="is nested too deeply to read", cure=_EXAMPLE)
    if isinstance(fields, dict):
        return fields
    cure = f'write {{"prompt": {shown(fields)}}}' if isinstance(fields, str) else _EXAMPLE
    return Fault(rule=f"is {kind(fields)}, not an object", cure=cure)


def _ends_early(text: str, exc: json.JSONDecodeError) -> bool:
    """Whether the object that *text* starts would have gone on."""
    return text.startswith("{") and (exc.pos >= len(text) or not text.endswith("}"))


def _invalid_json(text: str, exc: json.JSONDecodeError) -> Fault:
    rule = f"is not JSON: {exc.msg} (column {exc.colno})"
    if text.startswith("{"):
        if exc.pos >= len(text):
            return Fault(rule=rule, cure=_ONE_LINE)
        cure = "write names and texts in double quotes, with no comma after the last pair"
        return Fault(rule=rule, cure=cure)
    return Fault(rule=rule, cure=f'write {{"prompt": {shown(text)}}}')


def _not_json_lines(data: bytes) -> tuple[int, Fault] | None:
    """The one fault of a file that is something else as a whole; None if it may be JSON Lines."""
    if data.startswith(_UTF16):
        return 1, Fault(rule="the file is UTF-16", cure="save it as UTF-8")
    found = _FIRST_LINE.match(data)
    if not found:
        return None
    number = data.count(b"\n", 0, found.start(1)) + 1
    first = found.group(1).rstrip()
    if first == b"[" or (first.startswith(b"[") and data[-64:].rstrip().endswith(b"]")):
        return number, Fault(rule="the file is a JSON array, not JSON Lines", cure=_ONE_A_LINE)
    if _OPEN_OBJECT.match(data, found.start(1)):
        return number, Fault(rule="the file has an object over several lines", cure=_ONE_LINE)
    return None


def _repeated_key(key: str) -> Fault:
    field = key if key.isascii() and key.isidentifier() else shown(key)
    return Fault(field=field, rule="is given more than once", cure="keep one of them")
