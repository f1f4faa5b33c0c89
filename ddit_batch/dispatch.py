"""The Celery side: one configured app, and the messages that make up a job's chain.

A job is one chain, published in two parts: ``encode`` when the scheduler admits the job, and
``dit -> vae`` when the policy has placed it; root and parent ids join them in Flower. After a fault
the same code publishes what remains. A task that returns publishes the next link; one whose job
must not go on raises ``Ignore``.

Celery is transport only: no results, and a message names a job, an attempt and the protocol in
which that is meant, nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery import Celery, chain

from ddit_batch.broker_guard import guard
from ddit_batch.job import JobId, Phase, WorkerName, join_id, queue_of, root_id, task_id
from ddit_batch.protocol import PROTOCOL

if TYPE_CHECKING:
    from celery.canvas import Signature

TASK_NAME: dict[Phase, str] = {phase: f"ddit.{phase}" for phase in Phase}
JOIN_TASK = "ddit.join"
"""The task of a follower: it enters the group that denoises a job, and ends when it has left."""

VISIBILITY_TIMEOUT_S = 30 * 24 * 3600
"""Far above the longest phase: Redis would deliver a message a second time to another worker after
this. Lost workers are found by their leases, not by this."""


def make_celery(broker_url: str) -> Celery:
    """The app that producers, workers and Flower share."""
    guard()
    app = Celery("ddit", broker=broker_url)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        task_default_queue=queue_of(Phase.ENCODE),
        task_send_sent_event=True,
        task_track_started=True,
        worker_send_task_events=True,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
        task_publish_retry_policy={"max_retries": 3, "interval_start": 0.05, "interval_max": 0.5},
    )
    return app


class Dispatcher:
    """Publishes the messages of jobs."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def encode(self, job_id: JobId, attempt: int) -> None:
        """Part one: the encode task."""
        self._signature(job_id, Phase.ENCODE, attempt, queue_of(Phase.ENCODE)).apply_async()

    def dit_then_vae(self, job_id: JobId, attempt: int, *, queue: str, vae_attempt: int) -> None:
        """Part two: DiT in its leader's *queue*, and behind it the VAE task."""
        chain(
            self._signature(job_id, Phase.DIT, attempt, queue),
            self._signature(job_id, Phase.VAE, vae_attempt, queue_of(Phase.VAE)),
        ).apply_async()

    def vae(self, job_id: JobId, attempt: int) -> None:
        """What remains of part two after its DiT."""
        self._signature(job_id, Phase.VAE, attempt, queue_of(Phase.VAE)).apply_async()

    def join(self, job_id: JobId, attempt: int, *, epoch: int, worker: WorkerName) -> None:
        """Have *worker* enter the group that plan *epoch* of a DiT attempt forms."""
        self._app.signature(
            JOIN_TASK,
            kwargs={"job_id": job_id, "attempt": attempt, "epoch": epoch, "protocol": PROTOCOL},
            immutable=True,
            queue=queue_of(Phase.DIT, worker),
            argsrepr="",
            kwargsrepr=f"job={job_id} attempt={attempt} epoch={epoch}",
            task_id=join_id(job_id, epoch, worker),
            root_id=root_id(job_id),
            parent_id=task_id(job_id, Phase.DIT, attempt),
        ).apply_async()

    def lost(self, job_id: JobId, phase: Phase, attempt: int, worker: WorkerName) -> None:
        """Have Flower show the attempt as LOST: *worker*, which had it, cannot say how it ended."""
        with self._app.events.default_dispatcher(hostname=worker) as events:
            events.send(
                "task-lost",
                uuid=task_id(job_id, phase, attempt),
                exception="its worker is gone",
            )

    def _signature(self, job_id: JobId, phase: Phase, attempt: int, queue: str) -> Signature:
        ids = {"task_id": task_id(job_id, phase, attempt), "root_id": root_id(job_id)}
        if phase is Phase.DIT:
            # Joins part two to part one. Each signature carries its ids itself: a parent id given
            # to the chain as a whole would be lost.
            ids["parent_id"] = root_id(job_id)
        return self._app.signature(
            TASK_NAME[phase],
            kwargs={"job_id": job_id, "attempt": attempt, "protocol": PROTOCOL},
            immutable=True,
            queue=queue,
            argsrepr="",
            kwargsrepr=f"job={job_id} attempt={attempt}",
            **ids,
        )
