"""Measuring workers: makes videos on them, dop by dop, and reads what they took.

A video is denoised at a dop because the scheduler's policy says so. Where no scheduler leads, one
is started for each dop, which gives it to every video; where one leads, its policy decides, and
what came up is what is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from sqlalchemy import Engine

from ddit_batch import __version__, prompt_file
from ddit_batch.cli.crew import Crew
from ddit_batch.cli.own_scheduler import Check, Leaderless
from ddit_batch.cli.prompts import Prompts, listed, submit_prompts
from ddit_batch.cli.watch import follow
from ddit_batch.db import status, wishes
from ddit_batch.db.step_times import (
    form_times,
    phase_times,
    start_times,
    step_observations,
)
from ddit_batch.errors import RequestError
from ddit_batch.job import BatchId, JobState, Shape
from ddit_batch.measurement import (
    WARM_UP_STEPS,
    Conditions,
    Findings,
    dops_to_measure,
    measured_profile,
    prompt_lines,
    stand_in,
    videos_at_once,
)
from ddit_batch.model_config import ModelConfig
from ddit_batch.profile import Profile, profile_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be measured."""

    model: ModelConfig
    place: str
    """What a worker must be told to serve: its name, or where the user said that it is."""
    shapes: tuple[Shape, ...]
    steps: int
    """Of each video."""
    repeats: int
    """Videos of each shape, on each of the groups that work at once."""
    stamp: str
    """Of this measurement, for its prompts."""

    def prompts(self, label: str, *, at_once: int = 1) -> Prompts:
        """The videos to be made. *label* tells those of one submission from those of another.

        Raises:
            RequestError: The model does not take one of the shapes.
        """
        return self._prompts(label, steps=self.steps, repeats=self.repeats, at_once=at_once)

    def warm_up(self, label: str, *, at_once: int) -> Prompts:
        """A short video of each shape for each group, which does not count."""
        steps = min(self.steps, WARM_UP_STEPS)
        return self._prompts(f"{label}, warm-up", steps=steps, repeats=1, at_once=at_once)

    def _prompts(self, label: str, *, steps: int, repeats: int, at_once: int) -> Prompts:
        name = self.model.name
        lines = prompt_lines(
            name,
            self.shapes,
            steps=steps,
            repeats=repeats,
            stamp=f"{self.stamp}, {label}",
            at_once=at_once,
        )
        parsed = prompt_file.parse(
            lines, file_name="profile", models={name: self.model}, default_model=name
        )
        if parsed.problems:
            raise RequestError(f"{name} cannot be measured so:\n{listed(parsed.problems)}")
        return Prompts(
            name=f"profile, {label}",
            requests=parsed.requests,
            content_hash=parsed.content_hash,
            models=(self.place,),
        )


def make_profile(
    crew: Crew, task: Task, *, asked: Sequence[int], name: str, device: str, now: datetime
) -> tuple[Profile, Findings]:
    """The profile of the workers at hand, and all that was found.

    Args:
        crew: The workers.
        task: What to measure of them.
        asked: The dops; none: the legal powers of two that the workers can form.
        name: Of the profile.
        device: What they run on; empty: as they say themselves.
        now: For the provenance.

    Raises:
        RequestError: A dop that was asked for cannot be measured.
        ServiceError: Not a single video came out.
    """
    nodes = crew.workers_by_node(task.model)
    dops = dops_to_measure(task.model, task.shapes, nodes, asked)
    if crew.leaderless is None:
        if asked:
            raise RequestError(
                f"--dop {asked[0]} cannot be asked for: a scheduler leads the workers at hand, and "
                "its policy decides: stop it (`ddit down`, or its service), and ddit profile "
                "brings its own; or leave --dop out to measure what it does"
            )
        click.echo("a scheduler leads here: its policy decides the dops", err=True)
    found = _measure(crew, task, dops, nodes)
    conditions = Conditions(
        device=device,
        software=f"ddit-batch {__version__}, {task.model.source}",
        date=now.date().isoformat(),
        steps=task.steps,
        workers=sum(nodes),
        dops=dops if crew.leaderless else (),
    )
    return measured_profile(task.model, found, conditions, name=name), found


def _measure(crew: Crew, task: Task, dops: Sequence[int], nodes: Sequence[int]) -> Findings:
    """Make the videos at each of *dops*, and say what they took; whatever comes up, none is left.

    A scheduler that leads already is left to its own choice of dops.
    """
    if crew.leaderless is None:
        _videos(crew, task.warm_up("as scheduled", at_once=1), crew.check)
        return _videos(crew, task.prompts("as scheduled"), crew.check)
    found = Findings()
    for dop in dops:
        label, at_once = f"dop {dop}", videos_at_once(nodes, dop)
        with _giving(crew, crew.leaderless, task, dop) as check:
            _videos(crew, task.warm_up(label, at_once=at_once), check)
            seen = _videos(crew, task.prompts(label, at_once=at_once), check).at(dop)
        if not seen.observations:
            click.echo(f"dop {dop}: no group of {dop} has denoised a video", err=True)
        found += seen
    return found


@contextmanager
def _giving(crew: Crew, leaderless: Leaderless, task: Task, dop: int) -> Iterator[Check]:
    """Have a scheduler lead that gives every video of *task* as many workers as *dop*."""
    with tempfile.TemporaryDirectory(prefix="ddit-profile-") as folder:
        profile = Path(folder) / "being-measured.yaml"
        profile.write_text(profile_yaml(stand_in(task.model, task.shapes[0], (dop,))), "utf-8")
        with leaderless.led_by(f"static:dop={dop}", profile) as check_scheduler:

            def check() -> None:
                crew.check()
                check_scheduler()

            yield check


def _videos(crew: Crew, prompts: Prompts, check: Check) -> Findings:
    """Make videos, and read what they took."""
    engine = crew.engine
    batch_id = submit_prompts(engine, prompts, out=None, new=True).batch_id
    try:
        follow(engine, batch_id, check)
    except BaseException:
        wishes.cancel(engine, [batch_id])
        raise
    _tell_failures(engine, batch_id)
    return Findings(
        observations=step_observations(engine, batch_id=batch_id),
        phases=phase_times(engine, batch_id),
        start_s=start_times(engine, batch_id),
        form_s=form_times(engine, batch_id),
    )


def _tell_failures(engine: Engine, batch_id: BatchId) -> None:
    for job in status.finished_jobs(engine, batch_id):
        if job.state is not JobState.SUCCEEDED:
            click.echo(f"{job.custom_id}: {job.failure_code}: {job.failure_message}", err=True)
