"""The nouns that everything else shares: ids, phases, states, shapes.

Pure: imports nothing of the project. The values of the enums are the words in SQL, JSON, queue
names and metric labels. What may follow what is in ``lifecycle.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

BatchId = NewType("BatchId", str)
"""One submitted file: ``b`` and ten hex digits."""

JobId = NewType("JobId", str)
"""One line of a batch: ``<batch>-<line number>``, so that ids sort as the file does."""

WorkerName = NewType("WorkerName", str)
"""A slot for a worker process, stable over restarts: ``dit-0@host``. Also its Celery node name."""

Incarnation = NewType("Incarnation", int)
"""One life of one worker process, numbered by Postgres."""


class Phase(StrEnum):
    """The three phases of a job, in order. The same word names the task, queue and service."""

    ENCODE = "encode"
    """Text to embeddings."""
    DIT = "dit"
    """Noise to latents, step by step."""
    VAE = "vae"
    """Latents to frames to an mp4 file."""


class JobState(StrEnum):
    """Where a job is. Waiting states alternate with working states, one pair a phase."""

    QUEUED = "queued"
    """Entered by submission, or by a return from ``encoding``. Left when an encode task claims the
    job. Nobody holds it: no process can take it down."""
    ENCODING = "encoding"
    """An encode worker holds it. If that worker dies, the scheduler returns it to ``queued``."""
    ENCODED = "encoded"
    """Embeddings are in the store, perhaps a checkpoint too. Waits until the policy gives it
    workers and a DiT task claims it. Nobody holds it."""
    DENOISING = "denoising"
    """A leader denoises it. If the leader dies, the scheduler returns it to ``encoded``, where it
    keeps its last checkpoint."""
    DENOISED = "denoised"
    """Latents are in the store. Waits for a VAE worker. Nobody holds it."""
    DECODING = "decoding"
    """A VAE worker holds it. If that worker dies, the scheduler returns it to ``denoised``."""
    SUCCEEDED = "succeeded"
    """The artifact that Postgres names is complete. Final."""
    FAILED = "failed"
    """Gave up, with a cause. Left only by a retry, to the last state whose handoff exists."""
    CANCELLED = "cancelled"
    """Stopped on request, after the worker that held it confirmed. Final."""


WORKING_STATE: dict[Phase, JobState] = {
    Phase.ENCODE: JobState.ENCODING,
    Phase.DIT: JobState.DENOISING,
    Phase.VAE: JobState.DECODING,
}
"""The state of a job while a worker holds it for that phase."""

WAITING_STATE: dict[Phase, JobState] = {
    Phase.ENCODE: JobState.QUEUED,
    Phase.DIT: JobState.ENCODED,
    Phase.VAE: JobState.DENOISED,
}
"""The state of a job that waits for that phase."""

PHASE_OF: dict[JobState, Phase] = {
    state: phase for table in (WAITING_STATE, WORKING_STATE) for phase, state in table.items()
}
"""The phase that a live state waits for or is in."""

FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
LIVE_STATES = frozenset(JobState) - FINAL_STATES
HELD_STATES = frozenset(WORKING_STATE.values())


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """The size of a video, which decides what a step costs."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.num_frames}"


def work_of(shape: Shape, steps: int) -> int:
    """*steps* steps of a job of *shape*, as pixels x frames x steps.

    A measure that is known without a profile and grows with the cost: it orders the jobs of one
    model. It is no time, and says nothing of jobs of two models.
    """
    return shape.height * shape.width * shape.num_frames * steps


def task_id(job_id: JobId, phase: Phase, attempt: int) -> str:
    """The Celery id of one attempt at one phase, as Flower shows it: ``b1-000004.dit.a2``."""
    return f"{job_id}.{phase}.a{attempt}"


def join_id(job_id: JobId, epoch: int, worker: WorkerName) -> str:
    """The Celery id of a follower's task: ``b1-000004.join.e17.dit-1@host``."""
    return f"{job_id}.join.e{epoch}.{worker}"


def root_id(job_id: JobId) -> str:
    """The Celery root id that all tasks of a job share: that of its first encode attempt."""
    return task_id(job_id, Phase.ENCODE, 1)


def queue_of(phase: Phase, worker: WorkerName | None = None) -> str:
    """The queue of *phase*: shared by its workers, or private to *worker*.

    DiT work always goes to a worker of the policy's choice, so it has private queues only.
    """
    return f"{phase}.{worker}" if worker else str(phase)


def worker_of_queue(queue: str) -> WorkerName | None:
    """The worker that a private queue belongs to; None for a shared one."""
    _, dot, name = queue.partition(".")
    return WorkerName(name) if dot else None
