"""The live picture of a batch: a bar for the whole, a line for each running job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ddit_batch.db.status import BatchSummary, RunningJob
from ddit_batch.job import PHASE_OF, JobState

PLAIN_EVERY_S = 5.0
"""How often a line is printed where there is no terminal to draw on."""

PACE_AFTER_S = 2.0
"""How long steps are watched before a time left is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A batch at one instant."""

    batch: BatchSummary
    running: tuple[RunningJob, ...]
    steps_done: int
    steps: int


class BatchDisplay:
    """Draws on stderr while the block lasts; without a terminal it prints a line now and then."""

    def __init__(self, name: str) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rest]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(name, total=None, rest="")
        self._live = Live(console=self._console, refresh_per_second=8)
        self._pace_from: tuple[int, float] | None = None
        self._plain_at_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.__exit__(kind, error, trace)

    def show(self, look: Look) -> None:
        """Draw *look*."""
        failed = look.batch.jobs.get(JobState.FAILED, 0)
        words = [f"{failed} failed"] if failed else []
        eta_s = look.batch.eta_s or self._pace_eta_s(look)
        if look.batch.paused_at is not None and not look.batch.is_done:
            words.append(f"paused: `ddit resume {look.batch.batch_id}`")
        elif eta_s is not None and not look.batch.is_done:
            words.append(f"about {_duration(eta_s)} left")
        rest = ", ".join(words)
        if self._console.is_terminal:
            self._bar.update(
                self._task, total=look.batch.total, completed=look.batch.done, rest=rest
            )
            self._live.update(Group(self._bar, _running_table(look.running)))
        elif time.monotonic() >= self._plain_at_s or look.batch.is_done:
            self._plain_at_s = time.monotonic() + PLAIN_EVERY_S
            running = ", ".join(_one_line(job) for job in look.running)
            self._console.print(
                f"{look.batch.done}/{look.batch.total} done {rest} [{running}]",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _pace_eta_s(self, look: Look) -> float | None:
        """From the pace of denoising steps since the first of them was seen.

        The scheduler cannot tell before live steps have told it of a model without a profile.
        """
        now_s = time.monotonic()
        if self._pace_from is None or look.steps_done <= self._pace_from[0]:
            self._pace_from = (look.steps_done, now_s)
            return None
        steps, since_s = self._pace_from
        left = look.steps - look.steps_done
        if left <= 0 or now_s - since_s < PACE_AFTER_S:
            return None
        return left * (now_s - since_s) / (look.steps_done - steps)


def _running_table(running: tuple[RunningJob, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("job", "phase", "step", "dop", "ETA", "worker"):
        table.add_column(column, no_wrap=True)
    for job in running:
        denoising = job.state is JobState.DENOISING
        table.add_row(
            job.custom_id,
            PHASE_OF[job.state],
            f"{job.step}/{job.steps}" if denoising else "",
            str(job.dop) if denoising else "",
            "" if job.eta_s is None else _duration(job.eta_s),
            job.worker,
        )
    return table


def _one_line(job: RunningJob) -> str:
    step = f" {job.step}/{job.steps}" if job.state is JobState.DENOISING else ""
    return f"{job.custom_id} {PHASE_OF[job.state]}{step}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
