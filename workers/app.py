"""The Celery app of the workers, and what a worker process does before it takes its first task.

``ddit worker`` executes ``celery -A workers.app worker`` with the phase and the name in the
environment. Flower uses the same app through ``flower.py``, without a phase, and so imports nothing
heavy.
"""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING, Generic, TypeVar

from celery import Task, bootsteps, signals
from celery.worker import state

from ddit_batch.config import load_settings, require
from ddit_batch.dispatch import JOIN_TASK, TASK_NAME, make_celery
from ddit_batch.errors import ConfigError
from ddit_batch.exit_codes import DRAINED
from ddit_batch.job import Phase, WorkerName
from ddit_batch.logs import set_up_logging

if TYPE_CHECKING:
    from workers.runtime import Runtime

logger = logging.getLogger(__name__)

_Part = TypeVar("_Part")

PHASE_VARIABLE = "DDIT_WORKER_PHASE"
NAME_VARIABLE = "DDIT_WORKER_NAME"

TASKS: dict[Phase, tuple[str, ...]] = {
    Phase.ENCODE: (TASK_NAME[Phase.ENCODE],),
    Phase.DIT: (TASK_NAME[Phase.DIT], JOIN_TASK),
    Phase.VAE: (TASK_NAME[Phase.VAE],),
}
"""What a worker of each phase does; ``ddit.<word>`` is in the module ``workers.<word>``."""

settings = load_settings()
require(settings, "broker_url")
app = make_celery(settings.broker_url.get_secret_value())


class PhaseTask(Task, Generic[_Part]):  # type: ignore[misc]  # celery has no types
    """A task that knows the process it runs in."""

    abstract = True
    runtime: Runtime[_Part]


def _phase() -> Phase:
    """The phase that this process was started for."""
    return Phase(os.environ[PHASE_VARIABLE])


class Prepare(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types
    """Loads the models and takes the lease before the first message is taken."""

    requires = ("celery.worker.components:Pool",)

    def start(self, _worker: object) -> None:
        """Import what is heavy, load, register."""
        from workers.prepare import prepare  # noqa: PLC0415 -- seconds of imports, workers only

        phase = _phase()
        try:
            self.runtime = prepare(phase, WorkerName(os.environ[NAME_VARIABLE]), settings)
        except ConfigError as exc:
            logger.critical("cannot serve: %s", exc)  # the last line of the log is the cause
            raise SystemExit(1) from exc
        for name in TASKS[phase]:
            app.tasks[name].runtime = self.runtime
        gc.freeze()  # what is loaded stays for life: no collection need look at it again
        signals.worker_shutting_down.connect(self._on_sigterm)
        self.runtime.lease.when_asked_to_drain(self._on_drain)

    def stop(self, worker: object) -> None:
        """End the incarnation once the attempt that runs has ended: the lease outlives its job.

        One that does not end in time must not hold up the end of the process either, of which
        nobody else may be waiting to make an end.
        """
        in_time = self.runtime.busy.acquire(timeout=settings.drain_s)
        if not in_time:
            logger.warning("leaving while an attempt still runs: the scheduler will rescue its job")
        self.runtime.close()
        if not in_time:
            logging.shutdown()
            os._exit(getattr(worker, "exitcode", None) or 0)

    def _on_sigterm(self, **_: object) -> None:
        """Celery then waits for the running task, which sees this at its next step boundary."""
        self.runtime.stop_requested.set()
        self.runtime.lease.drain()

    def _on_drain(self) -> None:
        """As on SIGTERM, but for the exit code: the main thread looks at this flag each second."""
        logger.info("asked to leave", extra={"action": "drain_requested"})
        self._on_sigterm()
        state.should_stop = DRAINED


if PHASE_VARIABLE in os.environ:
    app.conf.include = [f"workers.{name.removeprefix('ddit.')}" for name in TASKS[_phase()]]
    app.steps["worker"].add(Prepare)


@signals.setup_logging.connect
def _log_our_way(**_: object) -> None:
    set_up_logging(settings, {"worker": os.environ.get(NAME_VARIABLE)})
