"""Points in time as users write them: ``2026-07-01 12:00``, ``12:00:30``, ``5min``."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import click

from ddit_batch.cli.duration import Duration


class Moment(click.ParamType[datetime]):
    """A point in time; its value is an aware datetime. Without a zone it is the local one."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time that *value* means: a date with a time, a time of today, or how long ago."""
        text = str(value).strip()
        try:
            return _read(text)
        except ValueError:
            pass
        try:
            ago_s = Duration().convert(text, None, None)
            return datetime.now().astimezone() - timedelta(seconds=ago_s)
        except (click.BadParameter, OverflowError):
            self.fail(
                f"{value!r} is no time: write 2026-07-01T12:00, 12:00:30 (today), or 5min (ago)",
                param,
                ctx,
            )


def _read(text: str) -> datetime:
    """The time that a date with a time, or a time of today, means.

    Raises:
        ValueError: It is neither.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        today = datetime.now().astimezone().date()
        return datetime.combine(today, time.fromisoformat(text)).astimezone()
