"""What a format hands on: a line's fields under our names, and how the user had written them.

Pure. A format of prompt files (see ``formats.py``) turns bytes into numbered lines and knows no
model; ``prompt_file.py`` holds them against the rules and answers in the user's own words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ddit_batch.line_rules import Fault, Whole, shown

Fields = dict[str, object]
"""A line's fields. A value may be ``Written``, where the user's words for it were others than ours,
or a ``Fault``, where the format itself can tell that it is wrong."""

Format = Callable[[bytes], Iterator[tuple[int, Fields | Fault]]]
"""How a format reads a file: line numbers, from 1, each with the line's fields or with its fault.
A line may come more than once; with any fault, nothing of it becomes a request. A format never
raises for what the bytes hold."""


@dataclass(frozen=True, slots=True)
class Written:
    """A value that has another name or another form in the file than with us."""

    value: object
    """In our form."""
    field: str
    """Its name in the file: ``body.size``."""
    whole: object = None
    """What the user wrote, if that was more or other than the value: ``"832x480"``."""
    part: str = ""
    """Which part of that the value is: ``width``."""

    def placed(self, fault: Fault) -> Fault:
        """*fault*, found in the value, in the user's words."""
        written = self.value if self.whole is None else self.whole
        rule = f"{self.part} {fault.rule}" if self.part else fault.rule
        return dataclasses.replace(fault, field=self.field, value=shown(written), rule=rule)


@dataclass(frozen=True, slots=True)
class Seconds:
    """The length of a video in seconds: a number of frames as soon as its fps is known."""

    seconds: float
    """Finite and above zero."""

    def in_frames(self, fps: int, rule: Whole) -> int | Fault:
        """The nearest number of frames that *rule* allows; of two, the higher."""
        frames = self.seconds * fps
        if frames <= rule.highest + rule.multiple:
            multiples = math.floor((frames - rule.offset) / rule.multiple + 0.5)
            frames = max(rule.offset + multiples * rule.multiple, rule.offset)
        if frames > rule.highest:
            longest_s = math.floor(rule.highest / fps * 100) / 100
            return Fault(
                rule=f"makes more than {rule.highest} frames at {fps} fps, the most that "
                f"{rule.model} takes",
                cure=f"use {longest_s:g} or less",
            )
        return int(frames)


def refused(line: Fields, fault: Fault) -> Fields:
    """A *line* of which only the name is read, because of *fault*."""
    return {"custom_id": line.get("custom_id"), "prompt": fault}


def plain(value: object) -> object:
    """A field's value without its wrapping."""
    return value.value if isinstance(value, Written) else value


def name_in_file(name: str, value: object) -> str:
    """What the user calls the field that is *name* to us, and has *value*."""
    return value.field if isinstance(value, Written) else name
