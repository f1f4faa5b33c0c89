"""The tables of ``ddit status``. Apart from it, because its JSON needs no rich."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ddit_batch.db.history import Event, SegmentSpan
from ddit_batch.db.status import BatchSummary, Failures
from ddit_batch.durations import shown_duration
from ddit_batch.job import HELD_STATES, WAITING_STATE, JobState

_FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


def print_batches(found: tuple[BatchSummary, ...]) -> None:
    """A line a batch: how many of its jobs wait, run and have ended in which way."""
    # Without a frame all fit into 80 columns, if the file's name gives way.
    counts_of = ("jobs", "waiting", "running", *_FINAL)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("batch", no_wrap=True, min_width=len("b0123456789"))
    table.add_column("file", overflow="ellipsis")
    for name in counts_of:
        table.add_column(name, no_wrap=True, min_width=len(name))
    table.add_column("left", no_wrap=True, min_width=len("99 h 59 min"))
    for summary in found:
        waiting = sum(summary.jobs.get(state, 0) for state in WAITING_STATE.values())
        running = sum(summary.jobs.get(state, 0) for state in HELD_STATES)
        final = (summary.jobs.get(state, 0) for state in _FINAL)
        name = Path(summary.name).name
        counts = (str(count) for count in (summary.total, waiting, running, *final))
        table.add_row(summary.batch_id, name, *counts, _left(summary))
    Console().print(table)


def _left(summary: BatchSummary) -> str:
    if summary.is_done:
        return ""
    if summary.paused_at is not None:
        return "paused"
    return "" if summary.eta_s is None else shown_duration(summary.eta_s)


def print_failures(found: tuple[Failures, ...]) -> None:
    """Why jobs have failed, how many of each cause, and what to do about it."""
    console = Console(soft_wrap=True)
    for each in found:
        many = "1 job" if each.jobs == 1 else f"{each.jobs} jobs"
        console.print(f"\n{many} failed: {each.code}: {each.example}", markup=False)
        if each.advice is not None:
            console.print(f"  {each.advice}", markup=False)


def print_job(
    facts: Mapping[str, object], events: tuple[Event, ...], segments: tuple[SegmentSpan, ...]
) -> None:
    """What is known of a job, then its events, then its segments."""
    console = Console()
    about = Table(box=None, show_header=False)
    for name, value in facts.items():
        if value is not None:
            about.add_row(name, str(value))
    console.print(about)
    console.print(_event_table(events))
    console.print(_segment_table(segments))


def _event_table(events: tuple[Event, ...]) -> Table:
    table = Table("at", "trigger", "from", "to", "attempt", "worker", "detail", title="events")
    for event in events:
        table.add_row(
            event.at.isoformat(timespec="milliseconds"),
            event.trigger,
            event.from_state,
            event.to_state,
            str(event.attempt),
            event.worker or "",
            ", ".join(f"{key}: {value}" for key, value in event.detail.items()),
        )
    return table


def _segment_table(segments: tuple[SegmentSpan, ...]) -> Table:
    table = Table("steps", "dop", "workers", "seconds", "reason", title="segments")
    for segment in segments:
        table.add_row(
            f"{segment.from_step}-{segment.to_step}",
            str(segment.dop),
            ", ".join(segment.workers),
            f"{segment.seconds:.2f}",
            segment.reason,
        )
    return table
