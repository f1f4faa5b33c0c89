"""JSON Lines: bytes become the objects that they hold, line by line. One format of prompt files.

Pure, and ignorant of what the fields mean. What a format is: ``written.py``. Blank lines are
accepted without a word, besides what ``text_bytes.py`` accepts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from ddit_batch.line_rules import Fault, kind, shown, shown_name
from ddit_batch.text_bytes import CUT_OFF, is_cut_off, numbered_lines
from ddit_batch.written import Fields

_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*([^\s][^\n]*)")
# The first line opens an object and goes on with a text in the next.
_OPEN_OBJECT = re.compile(rb'\{(?:[^\n]*[,{\[])?[^\S\n]*\n\s*"')
_ONE_A_LINE = "write one object a line: `jq -c '.[]' FILE` turns an array into lines"
_ONE_LINE = "write each object on a single line: `jq -c . FILE` does it"
_EXAMPLE = 'write {"prompt": "..."}'


def jsonl_lines(data: bytes) -> Iterator[tuple[int, Fields | Fault]]:
    """The lines of *data* with their numbers, from 1; blank lines are left out.

    A line with a repeated key comes twice: once as a ``Fault``, and once with its fields, so that
    their faults are found as well.
    """
    if whole_file := _not_json_lines(data):
        yield whole_file
        return
    repeated: dict[str, None] = {}
    decoder = json.JSONDecoder(object_pairs_hook=_ObjectMaker(repeated))
    for number, line in numbered_lines(data):
        if isinstance(line, Fault):
            yield number, line
        elif text := line.strip():
            found = _fields(text, decoder, last=is_cut_off(line))
            for key in repeated:
                yield number, _repeated_key(key)
            repeated.clear()
            yield number, found


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


def _fields(text: str, decoder: json.JSONDecoder, *, last: bool) -> Fields | Fault:
    """The fields that *text* holds; *last* if it is a last line without its end."""
    try:
        fields = decoder.decode(text)
    except json.JSONDecodeError as exc:
        return CUT_OFF if last and _ends_early(text, exc) else _invalid_json(text, exc)
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
    found = _FIRST_LINE.match(data)
    if not found:
        return None
    number = data.count(b"\n", 0, found.start(1)) + 1
    first = found.group(1).rstrip()
    if first == b"[" or (first.startswith(b"[") and data[-64:].rstrip().endswith(b"]")):
        rule, cure = "the file is a JSON array, not JSON Lines", _ONE_A_LINE
    elif _OPEN_OBJECT.match(data, found.start(1)):
        rule, cure = "the file has an object over several lines", _ONE_LINE
    else:
        return None
    return number, Fault(rule=rule, cure=cure, whole_file=True)


def _repeated_key(key: str) -> Fault:
    return Fault(field=shown_name(key), rule="is given more than once", cure="keep one of them")
