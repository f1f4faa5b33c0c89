"""The world as a decision sees it: plain values, made by whoever drives the core.

Pure: no clock, no database, no broker. The live driver makes a snapshot from Postgres, a simulator
makes one from memory; the core and the policies cannot tell the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ddit_batch.job import HELD_STATES, Incarnation, JobId, JobState, Phase, Shape, WorkerName


class Whereabouts(StrEnum):
    """Where the message of an unclaimed attempt is."""

    NONE = "none"
    """No message is out: nothing dispatched, or claimed already."""
    SENT = "sent"
    """Waiting in its queue, or on its way between there and a claim."""
    MISSING = "missing"
    """Sent, unclaimed, and no longer in its queue: the broker or the worker that took it died."""


class StoreState(StrEnum):
    """Whether the artifact store takes what workers write."""

    WELL = "well"
    """As far as anybody knows."""
    FAILING = "failing"
    """No: new work would be lost."""
    PROBE = "probe"
    """Not the last time, and that is a while ago: one job may find out."""


class Instruction(StrEnum):
    """What a leader finds in its job's mailbox, beside the group that it should have."""

    CONTINUE = "continue"
    """Nothing but the group to say."""
    RELEASE = "release"
    """Checkpoint at the next boundary, give the job back, free the workers."""
    CANCEL = "cancel"
    """Stop at the next boundary; the job is not wanted any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job that is under way, or near the front of those that wait."""

    job_id: JobId
    batch_id: str
    state: JobState
    priority: int
    seq: int
    """Order of arrival; unique."""
    model: str
    shape: Shape
    steps: int
    step: int
    attempt: int
    dop: int
    """Workers that denoise it now; 0 outside ``denoising``."""
    message: Whereabouts
    group: tuple[WorkerName, ...]
    """The workers that work on it, or whose leader it was sent to; the leader first."""
    holder: Incarnation | None
    worker_losses: int
    cancel_requested: bool
    arrived_s: float
    """When it was submitted, on the clock of ``Snapshot.now_s``."""
    granted_step: int = 0
    """The step at which it was last given workers: starvation time counts from there."""
    pending: tuple[WorkerName, ...] | None = None
    """The group that a running job was told to have from its next step boundary, as long as it has
    another: () if it is to give all of them back. None: nothing is pending."""
    timeouts: int = 0
    """Workers that have hung while they held it."""
    silent_s: float = 0.0
    """Seconds since the worker that holds it was last seen to go on with it."""
    said_step_s: float | None = None
    """Seconds of its last step, as far as anybody has asked because it is silent."""
    last_group: tuple[WorkerName, ...] = ()
    """The workers of its last segment, while it has none: what they hold need not move."""
    paused: bool = False
    """Its batch is: it was under way when that was asked for, and is to come back."""

    @property
    def next_group(self) -> tuple[WorkerName, ...]:
        """The group that it has, or will have from its next step boundary."""
        return self.group if self.pending is None else self.pending

    @property
    def held(self) -> bool:
        """A worker works on it now."""
        return self.state in HELD_STATES

    @property
    def steps_left(self) -> int:
        """Denoising steps still to do."""
        return self.steps - self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """What a decision may know of a batch as a whole."""

    batch_id: str
    share: float = 1.0
    """Its weight against other batches: twice the share, twice the workers while both want them."""
    deadline_s: float | None = None
    """When its user wants all of it, on the clock of ``Snapshot.now_s``."""
    work_s: float = 0.0
    """GPU-seconds at dop 1 that its unfinished jobs still need, in the window or not. Only told of
    batches with a deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What the time before the snapshot was like, as its driver has measured it (``recent.py``)."""

    load: float = 0.7
    """Work that has come in, over what the DiT workers could do in that time at dop 1. Above 1 the
    queue grows."""
    usual_load: float = 0.7
    """The same over a longer time."""
    slow_s: float | None = None
    """Seconds from arrival to end that 19 of 20 jobs needed at most; None: too few have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One live incarnation of a worker."""

    name: WorkerName
    incarnation: Incarnation
    phase: Phase
    """The phase whose work it is there for."""
    host: str
    node: str
    models: frozenset[str]
    draining: bool
    """It takes no new work: it is about to leave, hangs, or does not speak our protocol."""
    lease_expired: bool
    decodes: bool = False
    """A DiT worker that decodes too, what its private queue ``vae.<worker>`` brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a decision may depend on, at one instant."""

    now_s: float
    """Seconds since an origin of the driver's choice; only differences mean anything."""
    jobs: tuple[JobView, ...]
    """All jobs that are held or dispatched, those to be cancelled, and of those that wait the
    first of each state and model that live workers serve, but of paused batches none."""
    workers: tuple[WorkerView, ...]
    waiting_to_decode: int
    """Jobs in ``denoised``, in the window or not, but for those that wait because their batch is
    paused."""
    may_lose_workers: bool
    """False for one lease time after an outage of the database or a take-over: nobody could renew,
    so an expired lease says nothing yet."""
    batches: tuple[BatchView, ...] = ()
    """The batches of ``jobs`` that differ from the defaults of ``BatchView``."""
    recent: Recent = Recent()
    store: StoreState = StoreState.WELL


def order_key(job: JobView) -> tuple[int, int]:
    """The order of waiting jobs: priority, then arrival. Total, because ``seq`` is unique."""
    return (-job.priority, job.seq)


LONGEST_STEP_S = 1e6
"""No step takes eleven days; and a thousand such steps still make an interval of Postgres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a leader last said of its job, on its way to the next snapshot."""

    attempt: int
    step: int
    """Steps done."""
    step_s: float
    """Seconds of the last one."""

    def __post_init__(self) -> None:
        """Raise ValueError for what no step can have been, or Postgres could not hold."""
        for name, least in (("attempt", 1), ("step", 0)):
            if not least <= getattr(self, name) < 2**31:
                raise ValueError(f"{name} is {getattr(self, name)}: use {least} to 2**31 - 1")
        if not 0.0 <= self.step_s <= LONGEST_STEP_S:
            raise ValueError(f"step_s is {self.step_s}: use seconds from 0 to {LONGEST_STEP_S:g}")
