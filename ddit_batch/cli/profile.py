"""``ddit profile``: measure the workers at hand, and write what a step costs into a file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import connected_engine
from ddit_batch.cli.crew import Crew, cluster_crew, deployed_crew
from ddit_batch.cli.machine import planned, workers_option
from ddit_batch.cli.measuring import Task, make_profile
from ddit_batch.cli.options import home_option
from ddit_batch.cli.own_cluster import cluster_at_hand
from ddit_batch.cli.prompts import START_OTHERS, check_served
from ddit_batch.cli.run import STOPPED_EXIT_CODE
from ddit_batch.config import load_settings
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.home import Home
from ddit_batch.errors import ServiceError
from ddit_batch.job import Shape
from ddit_batch.measurement import Findings, profile_name, usual_shapes
from ddit_batch.model_config import find_model, known_models
from ddit_batch.profile import parse_shape, profile_yaml


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


@command("ddit profile --model tiny-wan --workers 2 -o my-gpu.yaml")
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
    help="Workers that denoise a video together; may be repeated. Without it, 1, 2, 4, ... as far "
    "as the workers at hand suffice.",
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
    help="Videos of a shape at each dop, on each group; their median counts.",
)
@click.option("--device", default="", help="What the workers run on, for the file.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write instead of stdout.",
)
@workers_option
@home_option
def profile(
    model: str,
    shapes: tuple[Shape, ...],
    dops: tuple[int, ...],
    steps: int,
    repeats: int,
    device: str,
    out: Path | None,
    workers: int,
    home: Home,
) -> None:
    """Measure what steps, encoding and decoding take, and write a profile.

    Makes some videos, at one dop after the other and as many at once as there is room for: on the
    workers of the cluster that runs, or of one for its own length. Stop other work first: what
    shares the workers is measured, too.
    """
    config = find_model(model, known_models(load_settings().models_folder))
    now = datetime.now(UTC)
    task = Task(
        model=config,
        place=model,
        shapes=shapes or usual_shapes(config),
        steps=steps,
        repeats=repeats,
        stamp=now.isoformat(),
    )
    task.prompts("to be checked")  # before anything is started
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _crew(home, task, workers) as crew:
            found, seen = make_profile(
                crew,
                task,
                asked=dops,
                name=profile_name(out.stem if out else f"{config.name}-measured"),
                device=device,
                now=now,
            )
    except KeyboardInterrupt:
        click.echo("stopped; nothing was written", err=True)
        sys.exit(STOPPED_EXIT_CODE)
    if out is None:
        click.echo(profile_yaml(found), nl=False)
    else:
        out.write_text(profile_yaml(found), "utf-8")
        click.echo(f"profile {found.name} in {out}", err=True)
    click.echo(_changes(seen), err=True)


def _changes(seen: Findings) -> str:
    """What is no part of a profile, in the words of those who take it."""
    words = [f"--start-s {median(seen.start_s):.3f}"]
    if seen.form_s:
        words.append(f"--form-s {median(seen.form_s):.3f}")
    return f"what changes cost, for ddit simulate and ddit plan: {' '.join(words)}"


@contextmanager
def _crew(home: Home, task: Task, workers: int) -> Iterator[Crew]:
    """The workers of the deployment, of the cluster that runs, or of one for its own length."""
    prompts = task.prompts("to be served")
    if load_settings().database_url.get_secret_value():
        with connected_engine(home) as engine:
            if not check_served(engine, prompts, cure=START_OTHERS):
                raise ServiceError("no worker is online to be measured: see `ddit doctor`")
            yield deployed_crew(engine, home, prompts.models)
        return
    plan = planned(workers=workers, cluster=None, models=prompts.models, flower=False, policy=None)
    with cluster_at_hand(home, replace(plan, schedulers=0), prompts) as cluster:
        engine = make_engine(cluster.database_url)
        try:
            yield cluster_crew(engine, home, cluster, prompts.models)
        finally:
            engine.dispose()
