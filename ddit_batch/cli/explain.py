"""``ddit explain``: why a job waits, or has the dop that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from ddit_batch.cli.command import command
from ddit_batch.cli.connection import readable_source
from ddit_batch.cli.job_story import came_back, ended, past_segments
from ddit_batch.cli.moment import Moment
from ddit_batch.cli.options import home_option
from ddit_batch.db import history
from ddit_batch.db.decisions import latest, latest_with
from ddit_batch.db.history import Event
from ddit_batch.db.reading import Source
from ddit_batch.db.status import job_facts
from ddit_batch.durations import shown_duration
from ddit_batch.embedded.home import Home
from ddit_batch.errors import NotFound
from ddit_batch.explain import Explanation
from ddit_batch.explain import explain as explanation_of
from ddit_batch.explain.preempted import why_given_back
from ddit_batch.job import FINAL_STATES, HELD_STATES, JobId, JobState
from ddit_batch.lifecycle import Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What there is to say of a job at a time."""

    job_id: JobId
    custom_id: str
    state: JobState
    since: datetime
    at: datetime
    decided: Explanation | None
    """What the last decision says that shows it; None if it has ended, or none does."""
    sentences: tuple[str, ...]


@command("ddit explain b0123456789-000004")
@click.argument("job")
@click.option(
    "--at",
    type=Moment(),
    help="Then, not now: 2026-07-01T12:00, or 12:00:30 of today, or how long ago (5min).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the numbers apart.")
@home_option
def explain(job: str, at: datetime | None, home: Home, as_json: bool) -> None:
    """Say why JOB waits, or has the dop that it has, from the decisions on record.

    The scheduler keeps a sample of its decisions for a day. The last one that shows the job says
    what it waits for or what it has, who has the workers, and what one more doubling would bring.
    """
    with readable_source(home) as source:
        answer = _answer(source, JobId(job), at)
    if as_json:
        click.echo(json.dumps(_as_json(answer), ensure_ascii=False))
        return
    _print(answer)


def _answer(source: Source, job_id: JobId, at: datetime | None) -> _Answer:
    """What is known of the job now or at *at*.

    Raises:
        NotFound: There is no such job, it came later than *at*, or no decision is on record.
    """
    facts = _facts(source, job_id)
    events = history.events(source, job_id)
    then = at or datetime.now(UTC)
    past = tuple(event for event in events if event.at <= then) if at else events
    since = _time(facts["created_at"])
    if at and at < since:
        raise NotFound(f"job {job_id!r} was not there at {_shown(at)}: it came at {_shown(since)}")
    state, since = (past[-1].to_state, past[-1].at) if past else (JobState.QUEUED, since)
    decided = None
    if state in FINAL_STATES:
        said = ended(state, facts, past)
    else:
        is_paused = at is None and facts["waiting_for"] == "batch_paused"
        decided = None if is_paused else _decided(source, job_id, at)
        if is_paused:  # no decision looks at it
            said = (str(facts["waiting_because"]),)
        else:
            said = decided.sentences if decided else _not_shown(source, job_id, facts, at)
        said += (*came_back(past), *_preempted(source, job_id, past))
        if decided and decided.state is not state:
            said += (f"Since that decision it has become {state}.",)
    if state not in HELD_STATES:
        said += past_segments(source, job_id, until=at)
    return _Answer(
        job_id=job_id,
        custom_id=str(facts["custom_id"]),
        state=state,
        since=since,
        at=then,
        decided=decided,
        sentences=said,
    )


def _facts(source: Source, job_id: JobId) -> Mapping[str, object]:
    try:
        return job_facts(source, job_id)
    except NotFound:
        raise NotFound(
            f"no job {job_id!r}: `ddit status` lists the batches; a job's id is its batch's and "
            "the line number, such as b0123456789-000004"
        ) from None


def _decided(source: Source, job_id: JobId, at: datetime | None) -> Explanation | None:
    record = latest_with(source, job_id, until=at)
    return explanation_of(record, job_id) if record else None


def _preempted(source: Source, job_id: JobId, past: Sequence[Event]) -> tuple[str, ...]:
    """Why it has given its workers back, if that is what it did last."""
    last = past[-1] if past else None
    if last is None or (last.trigger, last.from_state) != (Trigger.GIVE_BACK, JobState.DENOISING):
        return ()
    record = latest_with(source, job_id, until=last.at)
    return why_given_back(record, job_id) if record else ()


def _not_shown(
    source: Source, job_id: JobId, facts: Mapping[str, object], at: datetime | None
) -> tuple[str, ...]:
    """What to say of a job that no decision on record shows.

    Raises:
        NotFound: No decision is on record at all.
    """
    newest = latest(source, until=at)
    if newest is None:
        raise NotFound(
            f"no decision is on record that could explain {job_id}: a scheduler records them while "
            "it runs (`ddit up`, `ddit run`), unless DDIT_DECISIONS_PER_S is 0, and keeps them for "
            "a day; `ddit status JOB` has the story of a job without them"
        )
    said = (
        f"The last decisions did not look at it: of the jobs that wait they see the first ones, "
        f"{len(newest.snapshot.jobs)} jobs in all, and it is further back, or no worker serves "
        f"{facts['model']}."
    )
    because = facts["waiting_because"] if at is None else None
    return (said, str(because)) if because else (said,)


def _print(answer: _Answer) -> None:
    for_s = (answer.at - answer.since).total_seconds()
    click.echo(
        f"{answer.job_id} ({answer.custom_id}): {_verb(answer.state)}, since "
        f"{_shown(answer.since)} ({shown_duration(max(for_s, 0.0))})"
    )
    for sentence in answer.sentences:
        click.echo(f"  {sentence}")
    if answer.decided:
        at = datetime.fromtimestamp(answer.decided.at_s, UTC)
        ago = shown_duration(max((answer.at - at).total_seconds(), 0.0))
        click.echo(f"As decided at {_shown(at)} ({ago} before) by {answer.decided.policy}.")


def _as_json(answer: _Answer) -> dict[str, object]:
    decided = answer.decided
    return {
        "job_id": answer.job_id,
        "custom_id": answer.custom_id,
        "state": str(answer.state),
        "since": answer.since.isoformat(),
        "at": answer.at.isoformat(),
        "policy": decided.policy if decided else None,
        "decided_at": datetime.fromtimestamp(decided.at_s, UTC).isoformat() if decided else None,
        "sentences": list(answer.sentences),
        "facts": dict(decided.facts) if decided else None,
    }


def _verb(state: JobState) -> str:
    if state in FINAL_STATES:
        return str(state)
    return f"{state}, runs" if state in HELD_STATES else f"{state}, waits"


def _shown(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def _time(value: object) -> datetime:
    assert isinstance(value, datetime)
    return value
