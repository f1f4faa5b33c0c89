"""``ddit submit``: a file becomes a batch in a cluster that runs."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from pathlib import Path

import click

from ddit_batch.cli.batch_options import deadline_option, share_option, wishes_of
from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.dry_run import show_dry_run
from ddit_batch.cli.options import home_option
from ddit_batch.cli.prompt_options import (
    file_argument,
    format_option,
    model_option,
    set_option,
    skip_invalid_option,
)
from ddit_batch.cli.prompts import START_ONE, check_served, load_prompts, submit_prompts
from ddit_batch.cli.skipped import errors_file, keep_skipped
from ddit_batch.config import load_settings
from ddit_batch.embedded.home import Home
from ddit_batch.formats import FormatName


@command("ddit submit prompts.jsonl --out videos")
@file_argument
@home_option
@model_option
@set_option
@format_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder of videos.")
@share_option
@deadline_option
@click.option("--new", is_flag=True, help="Make another batch even if this one exists.")
@skip_invalid_option
@click.option(
    "--errors",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the lines that --skip-invalid leaves out, instead of errors.jsonl in the "
    "folder of videos, or in this folder if none is given.",
)
@click.option("--dry-run", is_flag=True, help="Check FILE and sum it up; needs no cluster.")
@click.option("--allow-unserved", is_flag=True, help="Take models that no worker serves yet.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def submit(
    file: str,
    home: Home,
    model: str,
    overrides: dict[str, str],
    format_name: FormatName | None,
    out: Path | None,
    share: float | None,
    deadline: datetime | timedelta | None,
    new: bool,
    skip_invalid: bool,
    errors: Path | None,
    dry_run: bool,
    allow_unserved: bool,
    as_json: bool,
) -> None:
    """Submit FILE (- is standard input) to the running cluster; prints the batch's id.

    Nothing is submitted unless every line is good. The same content with the same options is the
    same batch, however often it is submitted; a share or deadline that is given anew replaces what
    it had.
    """
    if errors and not skip_invalid:
        raise click.UsageError("--errors is for --skip-invalid")
    wishes = wishes_of(share, deadline)
    prompts = load_prompts(
        file,
        model=model,
        overrides=overrides,
        models_folder=load_settings().models_folder,
        format_name=format_name,
        skip_invalid=skip_invalid,
    )
    if dry_run:
        show_dry_run(prompts, as_json=as_json)
        return
    with connected_engine(home) as engine:
        if not allow_unserved and not check_served(engine, prompts, cure=START_ONE):
            click.echo("no worker is online: the batch waits for one", err=True)
        keep_skipped(prompts, file=file, errors=errors_file(errors, out))
        submission = submit_prompts(engine, prompts, out=out, new=new, wishes=wishes)
    word = "submitted" if submission.created else "had been submitted before"
    click.echo(f"{submission.total} jobs, {word}", err=True)
    if as_json:
        found = {**dataclasses.asdict(submission), "skipped": prompts.skipped_lines}
        click.echo(json.dumps(found))
    else:
        click.echo(submission.batch_id)
