"""A prompt file becomes requests, or a list of everything that is wrong with it.

Rule 1: nothing in a file stops the reading, and nothing in it raises: the user learns of all
problems at once, each with file, line, field, value, rule and cure.
Rule 2: ``parse`` is pure over bytes; the same bytes and options give the same requests and the same
``content_hash``. Only ``read`` touches the outside.

What counts for a field, the last one wins: the model's default, the value that ``--set`` gives to
all lines, the line's own. Read next: ``formats.py`` (bytes to lines), ``line_rules.py`` (what a
field may be).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ddit_batch.errors import ConfigError, RequestError
from ddit_batch.line_aliases import ALIASES, unknown_field
from ddit_batch.line_rules import Fault, Rule, Text, Whole, as_number, rules_for, shown
from ddit_batch.model_config import Limits, ModelConfig
from ddit_batch.openai_batch import own_lines
from ddit_batch.request import Request, derive_seed
from ddit_batch.written import Fields, Format, Seconds, Written, name_in_file, plain

STDIN = "-"
"""The path that means standard input."""

_PER_LINE = frozenset({"custom_id", "model", "prompt", "metadata"})
_NO_LIMIT = 10**9
_ANYTHING = Limits(
    size_multiple=1,
    frame_multiple=1,
    min_size=1,
    max_size=_NO_LIMIT,
    max_frames=_NO_LIMIT,
    max_steps=_NO_LIMIT,
    max_prompt_chars=_NO_LIMIT,
)
"""For lines that name an unknown model: what can be said about them without its limits."""
_NO_PROMPT = Fault(
    field="prompt",
    rule="is missing",
    cure='add "prompt": "..."',
    code="missing_required_parameter",
)
_HASHED = tuple(sorted({f.name for f in dataclasses.fields(Request)} - {"line"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a file, and where."""

    file: str
    line: int
    """From 1."""
    field: str
    """Empty when the whole line is meant."""
    value: str
    """As written, shortened; empty when there is none."""
    rule: str
    cure: str
    code: str
    """One word for the kind of problem, as OpenAI names it."""
    custom_id: str | None = None
    """The line's own name for itself, as written, if it has one."""

    def __str__(self) -> str:
        """``prompts.jsonl:17: height: 725: must be a multiple of 16: use 720 or 736``."""
        parts = (f"{self.file}:{self.line}", self.field, self.value, self.rule, self.cure)
        return ": ".join(filter(None, parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """What a file asks for. With any problems, nothing of it should be submitted."""

    requests: tuple[Request, ...]
    """The lines without problems, in the file's order; none if the file as a whole is wrong."""
    problems: tuple[Problem, ...]
    content_hash: str
    """SHA-256 of the requests and their model configs: equal for files that ask for the same,
    whatever their names, line ends, blank lines at the end, key order or byte order mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """How to read a line for one model."""

    rules: Mapping[str, Rule]
    values: Mapping[str, object]
    """What the line gets for the fields that it does not give."""
    faults: Mapping[str, Fault]
    """What is wrong with those values, by field: a fault only of lines that use them."""


def read(path: str) -> bytes:
    """The bytes of the file at *path*, or of standard input for ``-``.

    Raises:
        RequestError: It cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as exc:
        raise RequestError(f"{path}: cannot be read: {exc.strerror}: check the path") from exc


def parse(
    data: bytes,
    *,
    file_name: str,
    models: Mapping[str, ModelConfig],
    default_model: str,
    overrides: Mapping[str, str] = MappingProxyType({}),
    lines: Format = own_lines,
) -> ParsedFile:
    """The requests of a file, with all its problems.

    *models* are those that a line may name, by that name; *default_model* is for lines that name
    none. *overrides* are the ``--set`` options: field to value, for lines that do not give the
    field. *lines* is the file's format.

    Raises:
        ConfigError: *default_model* is not among *models*.
        RequestError: An override is wrong; the message has a line for each.
    """
    if default_model not in models:
        known = ", ".join(sorted(models)) or "none"
        raise ConfigError(f"model {default_model!r} is unknown (known: {known})")
    shared = _check_overrides(overrides, rules_for(models[default_model], model_names=models))
    plans = {name: _plan(name, model, shared, models) for name, model in models.items()}
    unlimited = models[default_model].model_copy(update={"name": "any model", "limits": _ANYTHING})
    for_unknown = _plan("", unlimited, {}, models)

    reading = _Reading(
        file="stdin" if file_name == STDIN else file_name, plans=plans, unknown=for_unknown
    )
    for number, fields in lines(data):
        reading.take(number, fields, default_model)
    if not (reading.requests or reading.problems):
        nothing = Fault(rule="the file holds no prompts", cure='write {"prompt": "..."}')
        reading.note(nothing, 1, None)
    good = reading.good_requests()
    return ParsedFile(
        requests=good, problems=tuple(reading.problems), content_hash=_content_hash(good, models)
    )


class _Reading:
    """One file on its way: what its lines have given so far."""

    def __init__(self, *, file: str, plans: Mapping[str, _Plan], unknown: _Plan) -> None:
        self._file = file
        self._plans = plans
        self._for_unknown = unknown
        self._first_lines: dict[str, int] = {}
        self._is_hopeless = False
        self.requests: list[Request] = []
        self.problems: list[Problem] = []

    def take(self, number: int, fields: Fields | Fault, default_model: str) -> None:
        """Keep the request of one line, or all that is wrong with it."""
        if isinstance(fields, Fault):
            self.note(fields, number, None)
            return
        model = plain(fields.get("model"))
        name = default_model if model is None else model
        known = self._plans.get(name) if isinstance(name, str) else None
        checked = _check_line(number, fields, known or self._for_unknown, self._first_lines)
        if isinstance(checked, Request):
            self.requests.append(checked)
            return
        custom_id = plain(fields.get("custom_id"))
        for fault in checked:
            self.note(fault, number, custom_id if isinstance(custom_id, str) else None)

    def note(self, fault: Fault, line: int, custom_id: str | None) -> None:
        """Keep a problem of *line*."""
        self._is_hopeless |= fault.whole_file
        self.problems.append(_problem(fault, self._file, line, custom_id))

    def good_requests(self) -> tuple[Request, ...]:
        """Those of lines that have no problem; none if the file as a whole has one."""
        if self._is_hopeless:
            return ()
        bad_lines = {problem.line for problem in self.problems}
        return tuple(request for request in self.requests if request.line not in bad_lines)


def _check_line(
    number: int, fields: Fields, plan: _Plan, first_lines: dict[str, int]
) -> Request | list[Fault]:
    """The request of one line, or all that is wrong with it; notes its custom_id's first line."""
    given, faults = _check_fields(fields, plan)
    faults.extend(fault for name, fault in plan.faults.items() if fields.get(name) is None)
    if fields.get("prompt") is None and not any(ALIASES.get(n) == "prompt" for n in fields):
        faults.append(_NO_PROMPT)

    custom_id = given.get("custom_id")
    if fields.get("custom_id") is None:
        custom_id = f"line-{number:06d}"
    if isinstance(custom_id, str):
        first = first_lines.setdefault(custom_id, number)
        if first != number:
            faults.append(_repeated_id(custom_id, first, fields.get("custom_id")))
    if faults:
        return faults

    if "seed" not in given and "seed" not in plan.values:
        given["seed"] = derive_seed(line=number, content=given)
    values = {**plan.values, **given, "custom_id": custom_id}
    return Request(line=number, **values)  # type: ignore[arg-type]  # each rule returns its field's type


def _check_fields(fields: Fields, plan: _Plan) -> tuple[dict[str, object], list[Fault]]:
    """The given fields in their final types, and what is wrong with the others."""
    given: dict[str, object] = {}
    faults: list[Fault] = []
    for name, written in fields.items():
        value = plain(written)
        rule = plan.rules.get(name)
        if isinstance(value, Fault):
            faults.append(value)
        elif rule is None:
            faults.append(unknown_field(name))
        elif value is not None:
            checked = (
                _frames(value, fields, plan) if isinstance(value, Seconds) else rule.check(value)
            )
            if not isinstance(checked, Fault):
                given[name] = checked
            elif isinstance(written, Written):
                faults.append(written.placed(checked))
            else:
                faults.append(dataclasses.replace(checked, field=name, value=shown(value)))
    return given, faults


def _frames(length: Seconds, fields: Fields, plan: _Plan) -> int | Fault:
    """The frames that *length* makes at the fps of its line; 1 where that fps is wrong itself."""
    frames_rule, fps_rule = plan.rules["num_frames"], plan.rules["fps"]
    assert isinstance(frames_rule, Whole)
    given = plain(fields.get("fps"))
    fps = fps_rule.check(plan.values["fps"] if given is None else given)
    return length.in_frames(fps, frames_rule) if isinstance(fps, int) else 1


def _repeated_id(custom_id: str, first: int, written: object) -> Fault:
    return Fault(
        field=name_in_file("custom_id", written),
        value=shown(custom_id),
        rule=f"is already used on line {first}",
        cure="give each line its own",
        code="duplicate_custom_id",
    )


def _plan(
    name: str,
    model: ModelConfig,
    shared: Mapping[str, object],
    model_names: Collection[str],
) -> _Plan:
    """How to read lines for *model*, called *name*, with the values *shared* by all lines."""
    rules = rules_for(model, model_names=model_names)
    values = {**model.defaults.model_dump(), **shared}
    faults = {}
    for field, value in values.items():
        checked = rules[field].check(value)
        if isinstance(checked, Fault):
            origin = "--set" if field in shared else f"the defaults of {name}"
            faults[field] = dataclasses.replace(
                checked,
                field=field,
                value=shown(value),
                cure=f"{checked.cure or 'mend it'}, or give it on the line (it is from {origin})",
            )
    return _Plan(rules=rules, values={**values, "model": name}, faults=faults)


def _check_overrides(overrides: Mapping[str, str], rules: Mapping[str, Rule]) -> dict[str, object]:
    """The values of the ``--set`` options in their final types.

    Raises:
        RequestError: Some are wrong; the message has a line for each.
    """
    values: dict[str, object] = {}
    wrong: list[str] = []
    for name, text in overrides.items():
        rule = rules.get(name)
        if rule is None:
            fault = unknown_field(name)
        elif name in _PER_LINE:
            fault = Fault(rule="is set line by line", cure="write it into the file")
        else:
            checked = rule.check(text if isinstance(rule, Text) else as_number(text))
            if not isinstance(checked, Fault):
                values[name] = checked
                continue
            fault = checked
        reason = ": ".join(filter(None, (fault.rule, fault.cure)))
        wrong.append(f"--set {name}={text}: {reason}")
    if wrong:
        raise RequestError("\n".join(wrong))
    return values


def _problem(fault: Fault, file_name: str, line: int, custom_id: str | None) -> Problem:
    return Problem(
        file=file_name,
        line=line,
        field=fault.field,
        value=fault.value,
        rule=fault.rule,
        cure=fault.cure,
        code=fault.code or ("invalid_value" if fault.field else "invalid_line"),
        custom_id=custom_id,
    )


def _content_hash(requests: tuple[Request, ...], models: Mapping[str, ModelConfig]) -> str:
    """SHA-256 of what *requests* ask for; line numbers are no part of that."""
    used = {name: models[name].model_dump(mode="json") for name in {r.model for r in requests}}
    digest = hashlib.sha256(json.dumps([_HASHED, used], sort_keys=True).encode())
    values = operator.attrgetter(*_HASHED)
    for request in requests:
        digest.update(json.dumps(values(request)).encode())
    return digest.hexdigest()
