"""What the decision core says: commands, as values. The driver carries them out, in order."""

from __future__ import annotations

from dataclasses import dataclass

from ddit_batch.job import Incarnation, WorkerName
from ddit_batch.snapshot import Instruction, JobView


@dataclass(frozen=True, slots=True)
class LoseWorker:
    """Declare an incarnation lost: its lease ran out."""

    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Rescue:
    """Take the job back from a worker that is gone, one phase back."""

    job: JobView


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Fail the job: too many workers died while they held it."""

    job: JobView


@dataclass(frozen=True, slots=True)
class TakeAway:
    """Take the job from a worker that lives and hangs, one phase back; the worker gets no other."""

    job: JobView


@dataclass(frozen=True, slots=True)
class TimeOut:
    """Likewise, but fail the job: too many workers have hung while they held it."""

    job: JobView


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a job that was cancelled while nobody held it."""

    job: JobView


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Make void a message that its addressee will not claim; the job waits again."""

    job: JobView


@dataclass(frozen=True, slots=True)
class Send:
    """Open a new attempt at the phase that the job waits for, and publish it to *queue*."""

    job: JobView
    queue: str
    group: tuple[WorkerName, ...] = ()
    """For DiT: the workers, the leader first."""


@dataclass(frozen=True, slots=True)
class Resend:
    """Publish the live attempt's message again: the broker has lost it."""

    job: JobView


@dataclass(frozen=True, slots=True)
class Tell:
    """Put an instruction into the mailbox of a job that a worker holds."""

    job: JobView
    instruction: Instruction
    group: tuple[WorkerName, ...] = ()


Command = (
    LoseWorker | Rescue | GiveUp | TakeAway | TimeOut | Cancel | Withdraw | Send | Resend | Tell
)
