"""Lengths of time as users read them. Pure."""

from __future__ import annotations


def shown_duration(seconds: float) -> str:
    """*seconds* in two units: ``40 s``, ``1 min 05 s``, ``2 h 05 min``, ``3 d 04 h``."""
    if seconds < 60:  # noqa: PLR2004 -- a minute
        return f"{seconds:.3g} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest_s:02d} s"
