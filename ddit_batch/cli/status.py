"""``ddit status``: what has become of batches, of one batch, of one job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy import Engine

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import reading_engine
from ddit_batch.cli.options import home_option
from ddit_batch.db import history
from ddit_batch.db.status import BatchSummary, batches, job_facts
from ddit_batch.embedded.home import Home
from ddit_batch.errors import NotFound
from ddit_batch.job import HELD_STATES, WAITING_STATE, BatchId, JobId, JobState

FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@command("ddit status")
@click.argument("id_", required=False, metavar="[BATCH|JOB]")
@home_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a batch, or for the job.")
def status(id_: str | None, home: Home, as_json: bool) -> None:
    """Show all batches, or one BATCH, or the whole story of one JOB."""
    with reading_engine(home) as engine:
        if id_ and "-" in id_:
            _show_job(engine, JobId(id_), as_json=as_json)
            return
        found = batches(engine, BatchId(id_) if id_ else None)
    if id_ and not found:
        raise NotFound(f"no batch {id_!r}: `ddit status` lists them")
    if as_json:
        for summary in found:
            click.echo(json.dumps(_batch_as_json(summary)))
    else:
        Console().print(_batch_table(found))


def _batch_as_json(summary: BatchSummary) -> dict[str, object]:
    return {
        "batch_id": summary.batch_id,
        "name": summary.name,
        "total": summary.total,
        "created_at": summary.created_at.isoformat(),
        **{str(state): summary.jobs.get(state, 0) for state in JobState},
    }


def _batch_table(found: tuple[BatchSummary, ...]) -> Table:
    table = Table(Column("batch", no_wrap=True), "file", "jobs", "waiting", "running", *FINAL)
    for summary in found:
        waiting = sum(summary.jobs.get(state, 0) for state in WAITING_STATE.values())
        running = sum(summary.jobs.get(state, 0) for state in HELD_STATES)
        final = (summary.jobs.get(state, 0) for state in FINAL)
        name = Path(summary.name).name
        counts = (str(count) for count in (summary.total, waiting, running, *final))
        table.add_row(summary.batch_id, name, *counts)
    return table


def _show_job(engine: Engine, job_id: JobId, *, as_json: bool) -> None:
    facts = job_facts(engine, job_id)
    events = history.events(engine, job_id)
    segments = history.segment_spans(engine, job_id)
    if as_json:
        story = {
            **facts,
            "events": [dataclasses.asdict(event) for event in events],
            "segments": [dataclasses.asdict(segment) for segment in segments],
        }
        click.echo(json.dumps(story, default=str))
        return
    console = Console()
    about = Table(box=None, show_header=False)
    for name, value in facts.items():
        if value is not None:
            about.add_row(name, str(value))
    console.print(about)
    console.print(_event_table(events))
    console.print(_segment_table(segments))


def _event_table(events: tuple[history.Event, ...]) -> Table:
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


def _segment_table(segments: tuple[history.SegmentSpan, ...]) -> Table:
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
