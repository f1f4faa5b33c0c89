"""Why a job waits, or has the dop that it has: sentences from one decision on record.

Pure: a record goes in (``decision_record.py``), words and numbers come out; what ``ddit explain``
knows besides, it adds. Where to read next: ``seen.py`` (the record with a job in the middle),
``waiting.py``, ``running.py``. A policy may add its own words (``policy/base.py``: ``Explains``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from ddit_batch.decision_record import DecisionRecord
from ddit_batch.explain.running import running_facts, why_its_dop
from ddit_batch.explain.seen import Seen, seen_in
from ddit_batch.explain.waiting import waiting_facts, why_it_waits
from ddit_batch.job import HELD_STATES, JobId, JobState, WorkerName
from ddit_batch.policy.base import Explains
from ddit_batch.scheduler.commands import (
    Cancel,
    Command,
    GiveUp,
    LoseWorker,
    Rescue,
    Resend,
    Send,
    TakeAway,
    Tell,
    TimeOut,
    Withdraw,
)
from ddit_batch.snapshot import Instruction

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a decision has to say of one job."""

    job_id: JobId
    state: JobState
    """As the decision saw it."""
    policy: str
    at_s: float
    """When it was made, on the clock of its snapshot."""
    sentences: tuple[str, ...]
    """For a user; the most important first."""
    facts: Mapping[str, object]
    """The numbers and names in them, for a program."""


def explain(record: DecisionRecord, job_id: JobId) -> Explanation | None:
    """What the decision did about a job, and why. None: its snapshot does not show the job.

    Raises:
        ConfigError: This release has no such policy as made the decision.
    """
    seen = seen_in(record, job_id)
    if seen is None:
        return None
    job = seen.job
    held = job.state in HELD_STATES
    said = why_its_dop(seen) if held else why_it_waits(seen)
    done = [_done(command) for command in record.commands_for(job_id)]
    return Explanation(
        job_id=job_id,
        state=job.state,
        policy=record.policy,
        at_s=record.at_s,
        sentences=(*done, *said, *_own_words(seen)),
        facts=running_facts(seen) if held else waiting_facts(seen),
    )


def _own_words(seen: Seen) -> tuple[str, ...]:
    """What the policy itself has to say, of a job that it places."""
    policy, job = seen.policy, seen.job
    if not seen.is_the_policys or job.cancel_requested or not isinstance(policy, Explains):
        return ()
    return policy.explain(seen.record.snapshot, job)


def _done(command: Command) -> str:  # noqa: C901 -- one case for each command
    """What a command did about its job, as a sentence."""
    said = ""
    match command:
        case Send(_, queue, group):
            workers = f" for {', '.join(group)}" if len(group) > 1 else ""
            said = f"This decision sent it to the queue {queue}{workers}."
        case Resend():
            said = "Its message was lost on the way; this decision sent it again."
        case Withdraw(job) if job.paused:
            said = "Its batch was paused; this decision made its message void."
        case Withdraw():
            said = "Its message was for a worker that is gone; this decision made it wait again."
        case Rescue(job):
            said = f"Its worker is gone; this decision took it back from {job.state}."
        case GiveUp(job):
            losses = job.worker_losses + 1
            said = f"This decision gave it up: {losses} workers died while they held it."
        case TakeAway(job):
            said = (
                f"Its worker lives, but has not gone on with it for {job.silent_s:.0f} s; this "
                f"decision took it back from {job.state}."
            )
        case TimeOut(job):
            said = f"This decision gave it up: {job.timeouts + 1} workers hung while they held it."
        case Cancel():
            said = "It was cancelled while nobody held it; this decision ended it."
        case Tell(_, instruction, group):
            said = _told(instruction, group)
        case LoseWorker():
            pass  # no job's
        case _:
            assert_never(command)
    return said


def _told(instruction: Instruction, group: tuple[WorkerName, ...]) -> str:
    match instruction:
        case Instruction.CANCEL:
            return "It is to be cancelled; its worker was told to stop at the next step boundary."
        case Instruction.RELEASE:
            return (
                "It was told to checkpoint and to give all its workers back at the next step "
                "boundary; it goes on later, perhaps on others."
            )
        case Instruction.CONTINUE:
            return f"It was told to go on with {', '.join(group)} from the next step boundary."
        case _:
            assert_never(instruction)
