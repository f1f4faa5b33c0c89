"""``ddit submit``: a file becomes a batch in a cluster that runs."""

from __future__ import annotations

from pathlib import Path

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.options import file_argument, home_option, model_option, set_option
from ddit_batch.cli.prompts import load_prompts, submit_prompts
from ddit_batch.config import load_settings
from ddit_batch.embedded.home import Home


@command("ddit submit prompts.jsonl --out videos")
@file_argument
@home_option
@model_option
@set_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of videos.")
@click.option("--new", is_flag=True, help="Make another batch even if this one exists.")
def submit(
    file: str,
    home: Home,
    model: str,
    overrides: dict[str, str],
    out: Path | None,
    new: bool,
) -> None:
    """Submit FILE to the running cluster; prints the batch's id."""
    prompts = load_prompts(
        file, model=model, overrides=overrides, models_folder=load_settings().models_folder
    )
    with connected_engine(home) as engine:
        submission = submit_prompts(engine, prompts, out=out, new=new)
    word = "submitted" if submission.created else "had been submitted before"
    click.echo(f"{submission.total} jobs, {word}", err=True)
    click.echo(submission.batch_id)
