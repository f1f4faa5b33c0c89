"""OpenAI Batch files: JSON Lines with ``custom_id``, ``method``, ``url`` and ``body``.

Pure. Files that were written for ``/v1/videos`` are taken as they are; the body may also have our
own fields, so that a seed or a number of steps needs no other format. The names and the forms of
``size`` and ``seconds`` are those of OpenAI's video API.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from ddit_batch.jsonl import jsonl_lines
from ddit_batch.line_aliases import ALIASES, FIELDS, unknown_field
from ddit_batch.line_rules import Fault, as_number, kind, shown
from ddit_batch.written import Fields, Format, Seconds, Written, refused

METHOD = "POST"
URL = "/v1/videos"
ENVELOPE = {
    "custom_id": '"..."',
    "method": f'"{METHOD}"',
    "url": f'"{URL}"',
    "body": '{"prompt": "..."}',
}
"""The fields of a line, all of which it must have, each with an example."""
BODY = (*(name for name in FIELDS if name != "custom_id"), "size", "seconds")
"""The fields that a body may have."""

_SIZE = re.compile(r"([0-9]{1,9})[xX]([0-9]{1,9})", re.ASCII)
_OTHER_SIZE = re.compile(r"\s*([0-9]{1,5})\s*[^0-9]\s*([0-9]{1,5})\s*", re.ASCII)
_MIXED = "put lines of the two forms into two files"


def looks_like_batch_line(fields: Mapping[str, object]) -> bool:
    """Whether a line with *fields* was meant as an OpenAI Batch line."""
    return isinstance(fields.get("body"), dict) or {"method", "url"} <= fields.keys()


def json_format(data: bytes) -> Format:
    """The format of the first readable line of *data*."""
    objects = (line for _, line in jsonl_lines(data) if isinstance(line, dict))
    return openai_lines if looks_like_batch_line(next(objects, {})) else own_lines


def own_lines(data: bytes) -> Iterator[tuple[int, Fields | Fault]]:
    """The lines of a JSON Lines file with our own fields."""
    for number, line in jsonl_lines(data):
        if isinstance(line, dict) and looks_like_batch_line(line):
            rule = "is an OpenAI Batch line, in a file of lines of the plain form"
            yield number, refused(line, Fault(rule=rule, cure=_MIXED))
        else:
            yield number, line


def openai_lines(data: bytes) -> Iterator[tuple[int, Fields | Fault]]:
    """The lines of an OpenAI Batch file."""
    for number, line in jsonl_lines(data):
        if isinstance(line, Fault):
            yield number, line
        elif looks_like_batch_line(line):
            yield number, _request_of(line)
        else:
            rule = "is a line of the plain form, in a file of OpenAI Batch lines"
            yield number, refused(line, Fault(rule=rule, cure=_MIXED))


def _request_of(line: Fields) -> Fields:
    """The fields of one line; of one that asks for something else than a video, only that."""
    url, method = line.get("url"), line.get("method")
    if url not in (None, URL):
        rule = "is not served: only videos are made here"
        fault = Fault(field="url", value=shown(url), rule=rule, cure=f'write "{URL}"')
        return refused(line, fault)
    fields: Fields = {f"line.{name}": _stray(name) for name in line if name not in ENVELOPE}
    for name, example in ENVELOPE.items():
        if line.get(name) is None and name != "body":
            fields[f"line.{name}"] = _missing(name, f'add "{name}": {example}')
    if method not in (None, METHOD):
        rule = f"must be {METHOD}"
        fields["line.method"] = Fault(
            field="method", value=shown(method), rule=rule, cure=f'write "{METHOD}"'
        )
    fields["custom_id"] = line.get("custom_id")
    return fields | _body_fields(line.get("body"))


def _body_fields(body: object) -> Fields:
    """The fields that *body* gives, under our names."""
    if body is None:
        return {"prompt": _missing("body", f'add "body": {ENVELOPE["body"]}')}
    if not isinstance(body, dict):
        rule = f"must be an object, not {kind(body)}"
        return {"prompt": Fault(field="body", rule=rule, cure=f"write {ENVELOPE['body']}")}
    given = {name: value for name, value in body.items() if value is not None}
    fields: Fields = {}
    for name, value in given.items():
        if name == "size":
            fields |= _size_fields(value, given)
        elif name == "seconds":
            fields |= _seconds_fields(value, given)
        elif name in BODY:
            fields[name] = Written(value, f"body.{name}")
        else:
            is_prompt = ALIASES.get(name) == "prompt" and "prompt" not in given
            fields["prompt" if is_prompt else f"body.{name}"] = _stray(name, inside="body.")
    fields.setdefault("prompt", _missing("body.prompt", 'add "prompt": "..." to body'))
    return fields


def _size_fields(size: object, body: Mapping[str, object]) -> Fields:
    field = "body.size"
    if others := [f"body.{name}" for name in ("width", "height") if name in body]:
        return {field: _says_the_same(field, " and ".join(others))}
    found = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if found:
        return {
            part: Written(int(pixels), field, whole=size, part=part)
            for part, pixels in zip(("width", "height"), found.groups(), strict=True)
        }
    meant = _OTHER_SIZE.fullmatch(size) if isinstance(size, str) else None
    rule = 'must be a width and a height in pixels, such as "832x480"'
    cure = f'write "{meant[1]}x{meant[2]}"' if meant else ""
    return {field: Fault(field=field, value=shown(size), rule=rule, cure=cure)}


def _seconds_fields(seconds: object, body: Mapping[str, object]) -> Fields:
    field = "body.seconds"
    if "num_frames" in body:
        return {field: _says_the_same(field, "body.num_frames")}
    number = as_number(seconds) if isinstance(seconds, str) else seconds
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        fault = Fault(
            field=field,
            value=shown(seconds),
            rule="must be a number of seconds",
            cure='write it as "4" or 4',
        )
        return {field: fault}
    if not 0 < number < math.inf:
        rule = "must be more than 0, and finite"
        return {field: Fault(field=field, value=shown(seconds), rule=rule)}
    return {"num_frames": Written(Seconds(number), field, whole=seconds)}


def _stray(name: str, *, inside: str = "") -> Fault:
    """The fault of a field that stands in the wrong place, or has none."""
    if inside and name in ENVELOPE:
        cure = "put it beside body"
    elif not inside and name in BODY:
        cure = "put it into body"
    else:
        return unknown_field(name, known=BODY if inside else tuple(ENVELOPE), inside=inside)
    return Fault(
        field=f"{inside}{name}",
        rule="stands in the wrong place",
        cure=cure,
        code="unknown_parameter",
    )


def _missing(field: str, cure: str) -> Fault:
    return Fault(field=field, rule="is missing", cure=cure, code="missing_required_parameter")


def _says_the_same(field: str, others: str) -> Fault:
    return Fault(field=field, rule=f"says the same as {others}", cure="keep one of them")
