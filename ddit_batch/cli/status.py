"""``ddit status``: what has become of batches, of one batch, of one job."""

from __future__ import annotations

import dataclasses
import json

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import readable_source
from ddit_batch.cli.options import home_option
from ddit_batch.db import history
from ddit_batch.db.reading import Source
from ddit_batch.db.status import BatchSummary, Failures, batches, failures, job_facts
from ddit_batch.embedded.home import Home
from ddit_batch.errors import NotFound
from ddit_batch.job import BatchId, JobId, JobState


@command("ddit status")
@click.argument("id_", required=False, metavar="[BATCH|JOB]")
@home_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a batch, or for the job.")
def status(id_: str | None, home: Home, as_json: bool) -> None:
    """Show all batches, or one BATCH, or the whole story of one JOB."""
    with readable_source(home) as source:
        if id_ and "-" in id_:
            _show_job(source, JobId(id_), as_json=as_json)
            return
        found = batches(source, BatchId(id_) if id_ else None)
        failed = failures(source, BatchId(id_)) if id_ else ()
    if id_ and not found:
        raise NotFound(f"no batch {id_!r}: `ddit status` lists them")
    if as_json:
        for summary in found:
            click.echo(json.dumps(_batch_as_json(summary, failed if id_ else None)))
        return
    from ddit_batch.cli.status_tables import print_batches, print_failures  # noqa: PLC0415 -- rich

    print_batches(found)
    if failed:
        print_failures(failed)


def _batch_as_json(summary: BatchSummary, failed: tuple[Failures, ...] | None) -> dict[str, object]:
    causes = {} if failed is None else {"causes": [dataclasses.asdict(each) for each in failed]}
    return {
        "batch_id": summary.batch_id,
        "name": summary.name,
        "total": summary.total,
        "created_at": summary.created_at.isoformat(),
        "share": summary.share,
        "deadline": summary.deadline and summary.deadline.isoformat(),
        "eta_s": summary.eta_s,
        "paused_at": summary.paused_at and summary.paused_at.isoformat(),
        **{str(state): summary.jobs.get(state, 0) for state in JobState},
        **causes,
    }


def _show_job(source: Source, job_id: JobId, *, as_json: bool) -> None:
    facts = job_facts(source, job_id)
    events = history.events(source, job_id)
    segments = history.segment_spans(source, job_id)
    if as_json:
        story = {
            **facts,
            "events": [dataclasses.asdict(event) for event in events],
            "segments": [dataclasses.asdict(segment) for segment in segments],
        }
        click.echo(json.dumps(story, default=str))
        return
    from ddit_batch.cli.status_tables import print_job  # noqa: PLC0415 -- rich, not for JSON

    print_job(facts, events, segments)
