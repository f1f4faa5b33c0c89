"""What a file would ask of a cluster, for ``ddit submit --dry-run``."""

from __future__ import annotations

import json
from collections import Counter

import click
from rich.console import Console
from rich.table import Table

from ddit_batch.cli.prompts import Prompts, listed
from ddit_batch.job import Shape
from ddit_batch.request import Request


def show_dry_run(prompts: Prompts, *, as_json: bool) -> None:
    """Print how many jobs of which model, shape and steps *prompts* make."""
    groups = Counter(map(_kind, prompts.requests))
    steps = sum(request.num_inference_steps for request in prompts.requests)
    if as_json:
        found = {
            "jobs": groups.total(),
            "skipped": prompts.skipped_lines,
            "steps": steps,
            "groups": [_as_json(kind, jobs) for kind, jobs in sorted(groups.items())],
        }
        click.echo(json.dumps(found))
    else:
        table = Table("model", "shape", "steps", "jobs")
        for (model, shape, each), jobs in sorted(groups.items()):
            table.add_row(model, str(shape), str(each), str(jobs))
        Console().print(table)
    if prompts.skipped:
        click.echo(listed(prompts.skipped), err=True)
        click.echo(f"lines that would be left out: {prompts.skipped_lines}", err=True)
    counts = f"{groups.total()} jobs, {steps} denoising steps"
    click.echo(f"{counts}; nothing was submitted (--dry-run)", err=True)


_Kind = tuple[str, Shape, int]


def _kind(request: Request) -> _Kind:
    return request.model, request.shape, request.num_inference_steps


def _as_json(kind: _Kind, jobs: int) -> dict[str, object]:
    model, shape, steps = kind
    return {
        "model": model,
        "height": shape.height,
        "width": shape.width,
        "num_frames": shape.num_frames,
        "num_inference_steps": steps,
        "jobs": jobs,
    }
