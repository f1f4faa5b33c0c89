"""Options of the commands that submit: how the batch is to be treated beside others."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import click

from ddit_batch.cli.duration import Duration
from ddit_batch.db.submission import Wishes

MOST = 1000.0
"""The largest share: as much more than others as any sharing can honour."""


class Share(click.ParamType[float]):
    """A weight against other batches."""

    name = "number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that *value* means."""
        try:
            share = float(str(value))
        except ValueError:
            share = math.nan
        if not 1.0 / MOST <= share <= MOST:
            self.fail(
                f"{value!r} is no share: give a number from {1.0 / MOST:g} to {MOST:g}; "
                "1 is as much as any other batch has",
                param,
                ctx,
            )
        return share


class Deadline(click.ParamType[datetime | timedelta]):
    """A time, or how long after the submission."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        """The aware time, or the length of time, that *value* means."""
        if isinstance(value, datetime | timedelta):
            return value
        text = str(value).strip()
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            pass
        try:
            return timedelta(seconds=Duration().convert(text, None, None))
        except (click.BadParameter, OverflowError):
            self.fail(
                f"{value!r} is neither a time nor a length of time: write 2027-01-31T18:00 (local "
                "time unless it names a zone), or 90min, 6h or 1d12h from the submission",
                param,
                ctx,
            )


share_option = click.option(
    "--share",
    type=Share(),
    help="Weight against other batches, under a policy that shares: with 2, twice the workers of "
    "a batch with 1.",
)

deadline_option = click.option(
    "--deadline",
    type=Deadline(),
    help="When all of it is wanted: an ISO time, or such as 90min or 6h from the submission.",
)


def wishes_of(share: float | None, deadline: datetime | timedelta | None) -> Wishes:
    """The wishes that two options make; a time that is past is said, and stands."""
    if isinstance(deadline, datetime) and deadline < datetime.now(UTC):
        click.echo(f"the deadline {deadline.isoformat(timespec='minutes')} is past", err=True)
    return Wishes(share=share, deadline=deadline)
