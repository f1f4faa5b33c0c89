"""A worker of Celery outlives whatever is put into its queue, and takes the next real task."""

from __future__ import annotations

import base64
import json
import queue
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from ddit_batch.control import redis_url
from ddit_batch.dispatch import Dispatcher, make_celery
from ddit_batch.job import JobId

GOOD_S = 10.0
"""For the task behind the garbage: it needs a few milliseconds."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@dataclass(frozen=True)
class Served:
    """A worker, what it has done, and the queue that it serves."""

    redis: Redis
    dispatcher: Dispatcher
    done: queue.Queue[object]

    def still_works(self, number: int) -> bool:
        """Whether a real task gets through."""
        job_id = JobId(f"b0-{number:06d}")
        self.dispatcher.encode(job_id, 1)
        while True:
            try:
                found = self.done.get(timeout=GOOD_S)
            except queue.Empty:
                return False
            if found == job_id:
                return True


@pytest.fixture(scope="module")
def served(broker_url: str) -> Iterator[Served]:
    """One worker for all tests: it has to outlive them."""
    url = f"{broker_url}?virtual_host=8"
    done: queue.Queue[object] = queue.Queue()
    with Redis.from_url(redis_url(url)) as redis, make_celery(url) as app:
        redis.flushdb()
        _register(app, done)
        setup_logging.connect(_leave_logging_alone)
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20.0):
            yield Served(redis=redis, dispatcher=Dispatcher(app), done=done)
        setup_logging.disconnect(_leave_logging_alone)
        redis.flushdb()


def _leave_logging_alone(**_: object) -> None:
    """Without a receiver, Celery silences the whole process below ``error``, for good."""


def _register(app: Celery, done: queue.Queue[object]) -> None:
    @app.task(name="ddit.encode")  # type: ignore[misc]  # celery has no types
    def encode(**said: object) -> None:
        done.put(said.get("job_id"))


def a_message() -> dict[str, object]:
    """A task as the dispatcher publishes it, cut down to what counts."""
    body = [[], {"job_id": "b0-000000", "attempt": 1}, {"chain": None}]
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "ddit.encode", "id": "x", "retries": 0, "eta": None},
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "encode"},
            "body_encoding": "base64",
            "delivery_tag": "t",
        },
    }


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A message with one thing in it lost or changed, however deep."""
    message = a_message()
    part = message
    while True:
        name = draw(st.sampled_from(sorted(part)))
        inner = part[name]
        if not isinstance(inner, dict) or draw(st.booleans()):
            break
        part = inner
    if draw(st.booleans()):
        del part[name]
    else:
        part[name] = draw(JSON)
    return json.dumps(message).encode()


@st.composite
def strange_body(draw: st.DrawFn) -> bytes:
    """A message whose envelope is good, but not what is in it."""
    known = st.fixed_dictionaries({}, optional={"job_id": JSON, "attempt": JSON, "protocol": JSON})
    body = draw(JSON | st.tuples(st.just([]), known, st.dictionaries(st.sampled_from(EMBED), JSON)))
    message = a_message()
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    return json.dumps(message).encode()


EMBED = ["callbacks", "errbacks", "chain", "chord"]
GARBAGE = (
    st.binary(max_size=40)
    | JSON.map(lambda value: json.dumps(value).encode())
    | spoilt()
    | strange_body()
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(GARBAGE, min_size=1, max_size=5), number=st.integers(1, 999_999))
def test_worker_outlives_garbage_in_its_queue(
    served: Served, garbage: list[bytes], number: int
) -> None:
    """Text that is no JSON, JSON that is no message, a message that is no task of ours."""
    for data in garbage:
        served.redis.lpush("encode", data)

    assert served.still_works(number)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{}", b'{"properties": {}}', b"[" * 100_000],
    ids=lambda data: repr(data)[:20],
)
def test_worker_outlives_the_plain_cases(served: Served, data: bytes) -> None:
    """Those by which a worker of plain Celery ends."""
    served.redis.lpush("encode", data)

    assert served.still_works(1)
