"""What a line of a prompt file may say: one rule for each field, as data.

Pure, and ignorant of files: a rule sees one value and answers with that value in its final type, or
with a ``Fault`` that says what is wrong, without where. ``prompt_file.py`` adds the place,
``jsonl.py`` turns bytes into the lines, ``line_aliases.py`` knows the names that other tools use.

Decided here, once:

- ``null`` means "not given"; for ``prompt`` that is "missing".
- A float without a fraction is a whole number (``64.0`` is 64): programs that write tables make
  such numbers, and nothing is lost. A string or a boolean is never a number.
- Text is kept as it is written, blanks included. What Postgres or UTF-8 cannot store (NUL, lone
  surrogates) is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ddit_batch.model_config import ModelConfig

MAX_SEED = 2**32 - 1
MAX_FPS = 120
MAX_GUIDANCE_SCALE = 100.0
MAX_PRIORITY = 1000
MAX_CUSTOM_ID_CHARS = 128
# The three limits of metadata in OpenAI's API reference, which users know.
MAX_METADATA_PAIRS = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_VALUE_CHARS = 512

_SHOWN_CHARS = 40
_NOT_IN_A_NAME = re.compile("[/\\\\\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NUMBER = re.compile(
    r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)\s*",
    re.ASCII | re.IGNORECASE,
)
_NAME_RULE = (
    "must not start with a dot or contain /, \\ or control characters, because the video is named "
    "for it"
)
_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a value or a line, without where it stands."""

    rule: str
    """The rule that is broken: the sentence goes on from the value."""
    cure: str = ""
    """What to do about it."""
    field: str = ""
    """Empty when the fault is the whole line's."""
    value: str = ""
    """The value as ``shown`` shows it; empty when there is none to show."""
    code: str = ""
    """One word of OpenAI's for the kind of fault; empty for those that ``prompt_file`` can tell."""
    whole_file: bool = False
    """Nothing else in the file can be trusted: no line of it becomes a request."""


class Rule(Protocol):
    """What one field may be."""

    def check(self, value: object) -> object:
        """The value in its final type, or a ``Fault``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole number from *low* to *high*; minus *offset* it is a multiple of *multiple*."""

    low: int
    high: int
    multiple: int = 1
    offset: int = 0
    model: str = ""
    """The model whose limits these are; empty for limits that are everybody's."""

    def check(self, value: object) -> int | Fault:
        """*value* as an int, or what is wrong with it."""
        if isinstance(value, float) and math.isfinite(value):
            if not value.is_integer():
                cure = f"use {math.floor(value)} or {math.ceil(value)}"
                return Fault(rule="must be a whole number", cure=cure)
            value = int(value)
        if type(value) is not int:  # so that True is no number
            return _not_a_number("a whole number", value)
        if not self.low <= value <= self.high:
            of_model = f" for {self.model}" if self.model else ""
            return Fault(
                rule=f"must be {self.low} to {self.high}{of_model}",
                cure=_use(self._legal_near(value)),
            )
        if (value - self.offset) % self.multiple:
            plus = f" plus {self.offset}" if self.offset else ""
            return Fault(
                rule=f"must be a multiple of {self.multiple}{plus}",
                cure=_use(self._legal_near(value)),
            )
        return value

    def _legal_near(self, value: int) -> list[int]:
        """The legal numbers just below and just above *value*; none if the limits allow none."""
        down = value - (value - self.offset) % self.multiple
        lowest = self.low + (self.offset - self.low) % self.multiple
        if lowest > self.highest:
            return []
        return sorted({min(max(n, lowest), self.highest) for n in (down, down + self.multiple)})

    @property
    def highest(self) -> int:
        """The highest number that is a legal multiple."""
        return self.high - (self.high - self.offset) % self.multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """A finite number from *low* to *high*."""

    low: float
    high: float

    def check(self, value: object) -> float | Fault:
        """*value* as a float, or what is wrong with it."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return _not_a_number("a number", value)
        if not self.low <= value <= self.high:  # which NaN is not either
            if isinstance(value, float) and not math.isfinite(value):
                return _not_a_number("a number", value)
            near = self.low if value < self.low else self.high
            return Fault(rule=f"must be {self.low:g} to {self.high:g}", cure=f"use {near:g}")
        return float(value) + 0.0  # so that -0.0 and 0.0 are one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A string of at most *max_chars* characters."""

    max_chars: int
    model: str
    empty_cure: str = ""
    """What to do about an empty text; without it, empty is fine."""

    def check(self, value: object) -> str | Fault:
        """*value* as it is, or what is wrong with it."""
        if not isinstance(value, str):
            return _not_a_string(value)
        if self.empty_cure and not value.strip():
            return Fault(rule="is empty", cure=self.empty_cure)
        if len(value) > self.max_chars:
            return Fault(
                rule=f"has {len(value)} characters, more than {self.model} takes",
                cure=f"shorten it to {self.max_chars}",
            )
        return _unstorable(value) or value


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomId:
    """A name for the line, fit to name a file after."""

    def check(self, value: object) -> str | Fault:
        """*value* as it is, or what is wrong with it."""
        if not isinstance(value, str):
            return _not_a_string(value)
        if fault := _unstorable(value):
            return fault
        if not value.strip():
            return Fault(rule="is empty", cure="leave it out to get one for the line's number")
        if len(value) > MAX_CUSTOM_ID_CHARS:
            rule = f"has {len(value)} characters"
            return Fault(rule=rule, cure=f"shorten it to {MAX_CUSTOM_ID_CHARS}")
        if value.startswith(".") or _NOT_IN_A_NAME.search(value):
            better = _NOT_IN_A_NAME.sub("_", value.lstrip(".")) or "a-name"
            return Fault(rule=_NAME_RULE, cure=f"use {shown(better)}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The user's own pairs: an object of few, short strings."""

    def check(self, value: object) -> tuple[tuple[str, str], ...] | Fault:
        """*value* as pairs sorted by key, or what is wrong with the first wrong pair."""
        if not isinstance(value, dict):
            return Fault(rule=f"must be an object of strings, not {kind(value)}")
        if len(value) > MAX_METADATA_PAIRS:
            return Fault(
                rule=f"has {len(value)} pairs",
                cure=f"keep {MAX_METADATA_PAIRS} at most",
            )
        for key, text in value.items():
            if fault := self._check_pair(key, text):
                return fault
        return tuple(sorted(value.items()))

    def _check_pair(self, key: str, text: object) -> Fault | None:
        if not isinstance(text, str):
            return Fault(
                rule=f"must be an object of strings, but {shown(key)} is {kind(text)}",
                cure="put the value in quotes",
            )
        if not key or len(key) > MAX_METADATA_KEY_CHARS:
            return Fault(rule=f"has a key that is not 1 to {MAX_METADATA_KEY_CHARS} characters")
        if len(text) > MAX_METADATA_VALUE_CHARS:
            return Fault(
                rule=f"has {len(text)} characters at {shown(key)}",
                cure=f"shorten them to {MAX_METADATA_VALUE_CHARS}",
            )
        return _unstorable(key) or _unstorable(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """One of the known names."""

    names: Collection[str]

    def check(self, value: object) -> str | Fault:
        """*value* as it is, or what is wrong with it."""
        if not isinstance(value, str):
            return _not_a_string(value)
        if value not in self.names:
            return Fault(rule="is unknown", cure=f"name one of {', '.join(sorted(self.names))}")
        return value


def rules_for(model: ModelConfig, *, model_names: Collection[str]) -> dict[str, Rule]:
    """The rules of a line for *model*, by field, in the order in which users think of the fields.

    *model_names* are the models that a line may name instead.
    """
    limits = model.limits
    size = Whole(
        low=limits.min_size,
        high=limits.max_size,
        multiple=limits.size_multiple,
        model=model.name,
    )
    return {
        "custom_id": CustomId(),
        "model": OneOf(names=model_names),
        "prompt": Text(
            max_chars=limits.max_prompt_chars,
            model=model.name,
            empty_cure="say what the video shows",
        ),
        "negative_prompt": Text(max_chars=limits.max_prompt_chars, model=model.name),
        "height": size,
        "width": size,
        "num_frames": Whole(
            low=1,
            high=limits.max_frames,
            multiple=limits.frame_multiple,
            offset=1,
            model=model.name,
        ),
        "num_inference_steps": Whole(low=1, high=limits.max_steps, model=model.name),
        "guidance_scale": Real(low=0.0, high=MAX_GUIDANCE_SCALE),
        "seed": Whole(low=0, high=MAX_SEED),
        "fps": Whole(low=1, high=MAX_FPS),
        "priority": Whole(low=-MAX_PRIORITY, high=MAX_PRIORITY),
        "metadata": Metadata(),
    }


def shown(value: object) -> str:
    """*value* as a message shows it: JSON, short, and safe to print on any terminal."""
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return "[...]" if value else "[]"
    if isinstance(value, str) and len(value) > _SHOWN_CHARS:
        value = value[:_SHOWN_CHARS] + "..."
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > 2 * _SHOWN_CHARS and not isinstance(value, str):
        text = text[:_SHOWN_CHARS] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown_name(name: str) -> str:
    """A field's name as a message shows it: bare if it is a plain word, else as ``shown``."""
    is_plain = name.isidentifier() and name.isascii() and len(name) <= _SHOWN_CHARS
    return name if is_plain else shown(name)


def as_number(text: str) -> int | float | str:
    """The number that *text* spells out; *text* itself if it is none, for a rule to refuse."""
    if _NUMBER.fullmatch(text):
        for convert in (int, float):
            try:
                return convert(text)
            except ValueError:  # no whole number, or one of too many digits to read
                continue
    return text


def kind(value: object) -> str:
    """What *value* is called in JSON, with its article: ``an array``."""
    return "null" if value is None else _KINDS[type(value)]


def _use(numbers: list[int]) -> str:
    return f"use {' or '.join(map(str, numbers))}" if numbers else ""


def _not_a_number(wanted: str, value: object) -> Fault:
    if isinstance(value, float):
        return Fault(rule=f"must be {wanted}, and finite")
    cure = ""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value):
        cure = f"write {value} without quotes"
    elif isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15},[0-9]{1,15}", value):
        cure = f"write {value.replace(',', '.')}, with a point"
    return Fault(rule=f"must be {wanted}, not {kind(value)}", cure=cure)


def _not_a_string(value: object) -> Fault:
    cure = f'write "{shown(value)}"' if type(value) in {int, float} else ""
    return Fault(rule=f"must be a string, not {kind(value)}", cure=cure)


def _unstorable(text: str) -> Fault | None:
    """What keeps *text* from being stored as UTF-8 in Postgres; None if nothing does."""
    if "\0" in text:
        return Fault(rule="must not contain a NUL character (\\u0000)", cure="remove it")
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        half = f"\\u{ord(text[exc.start]):04x}"
        return Fault(
            rule=f"contains {half}, one half of a surrogate pair",
            cure="write both halves, or the character itself in UTF-8",
        )
    return None
