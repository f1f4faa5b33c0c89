"""What has become of a job so far, as sentences: why it came back, how it ended, its segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from ddit_batch.db.history import Event, SegmentSpan, segment_spans
from ddit_batch.db.reading import Source
from ddit_batch.durations import shown_duration
from ddit_batch.job import JobId, JobState
from ddit_batch.lifecycle import Trigger

_CAME_BACK = {
    Trigger.GIVE_BACK: "its worker gave it back",
    Trigger.WORKER_LOST: "its worker was lost",
    Trigger.TIMED_OUT: "its worker did not go on with it",
    Trigger.ATTEMPT_FAILED: "the attempt failed",
    Trigger.HANDOFF_LOST: "the output of the phase before was lost",
}
_BEGAN = {
    "start": "it was started",
    "resume": "it went on from its checkpoint",
    "grow": "it was given more workers",
    "shrink": "workers were taken from it",
    "older_checkpoint": "its newest checkpoint was lost, so it went on from the one before",
    "checkpoint_lost": "its checkpoint was lost, so it began again",
}


def came_back(events: Sequence[Event]) -> tuple[str, ...]:
    """Why it is back in the state that it waits in, if it came back there; oldest event first."""
    if not events or events[-1].trigger not in _CAME_BACK:
        return ()
    last = events[-1]
    why = last.detail.get("reason") or last.detail.get("message")
    by = f" by {last.worker}" if last.worker else ""
    said = (
        f"It was {last.from_state}{by} before (attempt {last.attempt}) and waits again, because "
        f"{_CAME_BACK[Trigger(last.trigger)]}{f': {why}' if why else ''}."
    )
    return (said,)


def ended(state: JobState, facts: Mapping[str, object], events: Sequence[Event]) -> tuple[str, ...]:
    """How a job has ended: what took how long, or what it failed of."""
    if not events:
        return ()
    match state:
        case JobState.SUCCEEDED:
            begun = next((e.at for e in events if e.trigger == Trigger.CLAIM), events[-1].at)
            took = shown_duration((events[-1].at - begun).total_seconds())
            return (f"It has its video, {took} after a worker first took it.",)
        case JobState.FAILED:
            why = events[-1].detail.get("message") or facts["failure_message"]
            return (f"It has failed in {events[-1].from_state}: {why}",)
        case _:
            return (f"It was cancelled while it was {events[-1].from_state}.",)


def past_segments(
    source: Source, job_id: JobId, *, until: datetime | None = None
) -> tuple[str, ...]:
    """A sentence for each segment that has ended, oldest first; of a time in the past, none."""
    return () if until else tuple(map(_segment, segment_spans(source, job_id)))


def _segment(span: SegmentSpan) -> str:
    steps = span.to_step - span.from_step
    pace = f", {span.seconds / steps:.3g} s a step" if steps and span.seconds else ""
    why = _BEGAN.get(span.reason, span.reason)
    return (
        f"Steps {span.from_step} to {span.to_step} at dop {span.dop} on "
        f"{', '.join(span.workers)} in {shown_duration(span.seconds)}{pace}: {why}."
    )
