"""``ddit profile``: measure the workers at hand, and write what a step costs into a file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import Engine

from ddit_batch import __version__, prompt_file
from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.options import home_option
from ddit_batch.cli.own_cluster import check_cluster, cluster_at_hand
from ddit_batch.cli.prompts import START_OTHERS, Prompts, check_served, listed, submit_prompts
from ddit_batch.cli.run import STOPPED_EXIT_CODE
from ddit_batch.cli.threads import threads_for
from ddit_batch.cli.watch import follow
from ddit_batch.config import load_settings
from ddit_batch.db import status, wishes
from ddit_batch.db.engine import make_engine
from ddit_batch.db.step_times import phase_times, step_observations
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.errors import RequestError, ServiceError
from ddit_batch.job import BatchId, JobState, Shape
from ddit_batch.measurement import (
    Conditions,
    measured_profile,
    profile_name,
    prompt_lines,
    usual_shapes,
)
from ddit_batch.model_config import ModelConfig, find_model, known_models
from ddit_batch.profile import Profile, parse_shape, profile_yaml

Check = Callable[[], None]


class ShapeType(click.ParamType[Shape]):
    """``WIDTHxHEIGHTxFRAMES``."""

    name = "WxHxF"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Shape:
        """The shape that *value* means."""
        if isinstance(value, Shape):
            return value
        try:
            return parse_shape(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is to be measured."""

    model: ModelConfig
    prompts: Prompts
    conditions: Conditions
    name: str


@command("ddit profile --model tiny-wan -o my-gpu.yaml")
@click.option("--model", default="tiny-wan", show_default=True, help="Model to measure.")
@click.option(
    "--shape",
    "shapes",
    type=ShapeType(),
    metavar="WxHxF",
    multiple=True,
    help="Width, height and frames of the videos, such as 832x480x81; may be repeated. Without it, "
    "the model's default shape and two smaller ones.",
)
@click.option(
    "--dop",
    "dops",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1,),
    show_default=True,
    help="Workers that denoise a video together; may be repeated.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Denoising steps of a video.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Videos of a shape; their median counts.",
)
@click.option("--device", default="", help="What the workers run on, for the file.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write instead of stdout.",
)
@home_option
def profile(
    model: str,
    shapes: tuple[Shape, ...],
    dops: tuple[int, ...],
    steps: int,
    repeats: int,
    device: str,
    out: Path | None,
    home: Home,
) -> None:
    """Measure what steps, encoding and decoding take, and write a profile.

    Makes some videos on the workers of the cluster that runs, or of one for its own length. Stop
    other work first: what shares the workers is measured, too.
    """
    _check_dops(dops)
    config = find_model(model, known_models(load_settings().models_folder))
    now = datetime.now(UTC)
    task = _Task(
        model=config,
        prompts=_prompts(
            config, model, shapes or usual_shapes(config), steps=steps, repeats=repeats, now=now
        ),
        conditions=Conditions(
            device=device,
            software=f"ddit-batch {__version__}, {config.source}",
            date=now.date().isoformat(),
            steps=steps,
        ),
        name=profile_name(out.stem if out else f"{config.name}-measured"),
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _workers_at_hand(home, task.prompts) as (engine, check):
            found = _measure(engine, task, check)
    except KeyboardInterrupt:
        click.echo("stopped; nothing was written", err=True)
        sys.exit(STOPPED_EXIT_CODE)
    if out is None:
        click.echo(profile_yaml(found), nl=False)
    else:
        out.write_text(profile_yaml(found), "utf-8")
        click.echo(f"profile {found.name} in {out}", err=True)


def _check_dops(dops: Sequence[int]) -> None:
    wider = [dop for dop in dops if dop > 1]
    if wider:
        raise click.UsageError(
            f"--dop {wider[0]} cannot be measured: workers of this release denoise alone; "
            "leave it out, or write published seconds into the file by hand"
        )


def _prompts(
    model: ModelConfig,
    place: str,
    shapes: Sequence[Shape],
    *,
    steps: int,
    repeats: int,
    now: datetime,
) -> Prompts:
    """What to submit.

    Raises:
        RequestError: The model does not take one of the shapes.
    """
    lines = prompt_lines(model.name, shapes, steps=steps, repeats=repeats, stamp=now.isoformat())
    parsed = prompt_file.parse(
        lines, file_name="profile", models={model.name: model}, default_model=model.name
    )
    if parsed.problems:
        raise RequestError(f"{model.name} cannot be measured so:\n{listed(parsed.problems)}")
    return Prompts(
        name="profile",
        requests=parsed.requests,
        content_hash=parsed.content_hash,
        models=(place,),
    )


@contextmanager
def _workers_at_hand(home: Home, prompts: Prompts) -> Iterator[tuple[Engine, Check]]:
    """The database of a cluster that serves the model, and what to call while waiting for it."""
    if load_settings().database_url.get_secret_value():
        with connected_engine(home) as engine:
            if not check_served(engine, prompts, cure=START_OTHERS):
                raise ServiceError("no worker is online to be measured: see `ddit doctor`")
            yield engine, lambda: None
        return
    plan = ClusterPlan(
        dit_workers=1, models=prompts.models, flower=False, torch_threads=threads_for(1)
    )
    with cluster_at_hand(home, plan, prompts) as cluster:
        engine = make_engine(cluster.database_url)
        try:
            yield engine, lambda: check_cluster(engine, home)
        finally:
            engine.dispose()


def _measure(engine: Engine, task: _Task, check: Check) -> Profile:
    """Make the videos and read what they took. Whatever comes up, none is left to be made.

    Raises:
        ServiceError: Not a single video of a shape came out.
    """
    batch_id = submit_prompts(engine, task.prompts, out=None, new=True).batch_id
    try:
        follow(engine, batch_id, check)
    except BaseException:
        wishes.cancel(engine, [batch_id])
        raise
    _tell_failures(engine, batch_id)
    return measured_profile(
        task.model,
        step_observations(engine, batch_id=batch_id),
        phase_times(engine, batch_id),
        task.conditions,
        name=task.name,
    )


def _tell_failures(engine: Engine, batch_id: BatchId) -> None:
    jobs = list(status.finished_jobs(engine, batch_id))
    failed = [job for job in jobs if job.state is not JobState.SUCCEEDED]
    for job in failed:
        click.echo(f"{job.custom_id}: {job.failure_code}: {job.failure_message}", err=True)
    if len(failed) == len(jobs):
        raise ServiceError("no video came out, so nothing was measured; see above")
