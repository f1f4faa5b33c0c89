"""Lengths of time as users write them: ``1d12h``, ``90min``."""

from __future__ import annotations

import re

import click

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)\s*")


class Duration(click.ParamType[float]):
    """A length of time above 0; its value is in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds that *value* means."""
        text = str(value).strip().lower()
        parts = list(_PART.finditer(text))
        seconds = sum(float(part[1]) * _SECONDS[part[2]] for part in parts)
        if "".join(part[0] for part in parts) != text or seconds <= 0:
            self.fail(f"{value!r} is no length of time: write 45s, 90min, 2h or 1d12h", param, ctx)
        return seconds
