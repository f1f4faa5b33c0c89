"""The option of the commands that start a cluster: by which policy it decides."""

from __future__ import annotations

import click

from ddit_batch.cost_model import CostModel
from ddit_batch.policy import make_policy


def _checked(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        make_policy(value, CostModel())  # that there is such a one: the scheduler makes its own
    return value


policy_option = click.option(
    "--policy",
    metavar="SPEC",
    callback=_checked,
    help="Decides which workers denoise which job, such as static:dop=1; default: DDIT_POLICY.",
)
