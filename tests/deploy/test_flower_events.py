from __future__ import annotations

import threading
import time

import pytest
from celery import Celery
from celery.events.state import State

from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.job import JobId, Phase, WorkerName

JOB = JobId("b1-000001")
DEAD = WorkerName("dit-0@unit")


@pytest.fixture
def app(broker_url: str) -> Celery:
    """The app on the session's broker."""
    return make_celery(broker_url)


def test_attempt_of_a_lost_worker_is_shown_as_lost(app: Celery) -> None:
    """Under its own id and its worker's name, with what became of it."""
    state = State()
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": state.event})
        listening = threading.Thread(target=receiver.capture, daemon=True)
        listening.start()
        deadline = time.monotonic() + 20
        while not state.tasks and time.monotonic() < deadline:
            Dispatcher(app).lost(JOB, Phase.DIT, 2, DEAD)  # until somebody listens
            time.sleep(0.1)
        receiver.should_stop = True
        listening.join(timeout=5)

    task = state.tasks[f"{JOB}.dit.a2"]
    assert task.state == "LOST"
    assert task.worker.hostname == DEAD
    assert task.exception == "its worker is gone"
