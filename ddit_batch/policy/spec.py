"""How settings name a policy: ``name``, or ``name:key=value,key=value``.

What names, keys and values there are is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ddit_batch.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Option:
    """A key that a policy takes."""

    read: Callable[[str], object]
    """The value that a word stands for; ``ValueError`` if it stands for none."""
    rule: str
    """What words there are, after "use"."""


def one_of(words: type[StrEnum]) -> Option:
    """A choice among the values of an enum."""
    return Option(words, " or ".join(words))


def whole_number() -> Option:
    """A number of workers."""
    return Option(_positive, "a whole number from 1")


def numbers_or(word: str) -> Option:
    """A list of numbers, one a class; *word* stands for the empty list."""
    return Option(
        lambda text: () if text == word else tuple(map(_positive, text.split("/"))),
        f"{word}, or whole numbers from 1 such as 2/2/4",
    )


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not int(text):
        raise ValueError(text)
    return int(text)


def split_specs(text: str) -> tuple[str, ...]:
    """The specs of a comma-separated list: ``dp,partitioned:sizes=1/2,dops=1/2,ddit`` has three.

    A comma ends a spec unless what follows it is a further ``key=value``.
    """
    return tuple(part.strip() for part in re.split(r",(?![^,:]*=)", text) if part.strip())


def parse(spec: str) -> tuple[str, dict[str, str]]:
    """The name in a spec, and its options as they are written.

    Raises:
        ConfigError: It has another form, or gives an option twice.
    """
    name, colon, rest = spec.partition(":")
    options: dict[str, str] = {}
    for part in rest.split(",") if colon else ():
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"policy {spec!r}: {part!r} is no option: write key=value")
        if key in options:
            raise ConfigError(f"policy {spec!r}: {key} is given twice: leave one out")
        options[key] = value
    return name, options


def read(spec: str, given: Mapping[str, str], known: Mapping[str, Option]) -> dict[str, object]:
    """The values of the options that a spec gives.

    Raises:
        ConfigError: A key or a value is not among the known ones; the message names those.
    """
    values: dict[str, object] = {}
    for key, text in given.items():
        if key not in known:
            raise ConfigError(f"policy {spec!r} has no option {key!r}: use {', '.join(known)}")
        try:
            values[key] = known[key].read(text)
        except ValueError:
            rule = known[key].rule
            raise ConfigError(f"policy {spec!r}: {key} cannot be {text!r}: use {rule}") from None
    return values
