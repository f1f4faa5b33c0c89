"""Live control over Valkey/Redis: mailboxes, calls, step progress, and what the broker holds.

Nothing here is the truth: an empty mailbox means no change, progress is on its way to Postgres, and
all of it may vanish at any moment and be made again. So callers treat a broker that is away
(``redis.RedisError``) as "nothing new", and what is not understood is nothing at all.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import TypeVar, cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ddit_batch.job import Incarnation, JobId
from ddit_batch.messages import (
    Call,
    Letter,
    NotUnderstood,
    read_call,
    read_letter,
    read_report,
    read_task_id,
    write,
)
from ddit_batch.snapshot import Progress

logger = logging.getLogger(__name__)

_Read = TypeVar("_Read")

_PROGRESS = "ddit:progress"
LONGEST_WAIT_S = 5.0
"""How long one wait for a call may take at most."""
MOST_CALLS = 64
"""Calls that are kept for a worker: those that it has missed beyond that are stale."""
CALLS_TTL_S = 60
"""Calls that nobody takes are void: the scheduler repeats what still holds in every round."""
MAILBOX_TTL_S = 60
"""A mailbox nobody rewrites for this long is void; the scheduler rewrites it in every round."""


class LiveControl:
    """A connection to the broker, for everything that is not a Celery message."""

    def __init__(self, broker_url: str) -> None:
        self._redis = _client(broker_url, socket_timeout_s=1.0)
        # Waits in the server: it must be more patient than whoever asks for a step's mailbox.
        self._waiting = _client(broker_url, socket_timeout_s=LONGEST_WAIT_S + 1.0)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._waiting.close()

    def ping(self) -> None:
        """Raise ``redis.RedisError`` if the broker does not answer."""
        self._redis.ping()

    def write_letter(self, job_id: JobId, letter: Letter) -> None:
        """Put *letter* into the job's mailbox, in place of what was there."""
        self._redis.set(_mailbox(job_id), write(letter), ex=MAILBOX_TTL_S)

    def read_letter(self, job_id: JobId) -> Letter | None:
        """What the job's mailbox holds, if anything in our protocol.

        About 60 us beside a step of seconds.
        """
        found = cast("bytes | None", self._redis.get(_mailbox(job_id)))
        return None if found is None else _understood(read_letter, found)

    def call(self, incarnation: Incarnation, call: Call) -> None:
        """Tell a worker of a plan that it is a member of."""
        calls = _calls(incarnation)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(calls, write(call))
            pipeline.ltrim(calls, -MOST_CALLS, -1)
            pipeline.expire(calls, CALLS_TTL_S)
            pipeline.execute()

    def next_call(self, incarnation: Incarnation, timeout_s: float) -> Call | None:
        """The next call for a worker; None after *timeout_s* (0.01 to ``LONGEST_WAIT_S``) without.

        For one thread of the worker: a call is given once.
        """
        wait_s = min(max(timeout_s, 0.01), LONGEST_WAIT_S)
        found = self._waiting.blpop([_calls(incarnation)], timeout=wait_s)
        return None if found is None else _understood(read_call, cast("bytes", found[1]))

    def report(self, job_id: JobId, progress: Progress) -> None:
        """Say how far a job is."""
        self._redis.hset(_PROGRESS, job_id, json.dumps(asdict(progress)))

    def reports(self) -> dict[JobId, Progress]:
        """How far all jobs are that have said so. What is no report is dropped for good."""
        found = cast("dict[bytes, bytes]", self._redis.hgetall(_PROGRESS))
        read = {key: _understood(read_report, key, data) for key, data in found.items()}
        if bad := [key for key, report in read.items() if report is None]:
            self._redis.hdel(_PROGRESS, *bad)
        return dict(filter(None, read.values()))

    def forget_reports(self, job_ids: Iterable[JobId]) -> None:
        """Drop what was said of jobs that are not denoised any more."""
        if gone := list(job_ids):
            self._redis.hdel(_PROGRESS, *gone)

    def waiting_task_ids(self, queues: Iterable[str]) -> frozenset[str]:
        """The ids of the Celery messages that wait in *queues*, taken by no worker yet."""
        found = (
            _understood(read_task_id, message)
            for queue in queues
            for message in cast("list[bytes]", self._redis.lrange(queue, 0, -1))
        )
        return frozenset(filter(None, found))


def _client(broker_url: str, *, socket_timeout_s: float) -> Redis:
    return Redis.from_url(
        redis_url(broker_url),
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 1),
    )


def redis_url(broker_url: str) -> str:
    """The URL by which the redis client knows what Celery calls *broker_url*."""
    if not broker_url.startswith("redis+socket://"):
        return broker_url
    return re.sub("(?<=[?&])virtual_host=/?", "db=", broker_url.replace("redis+socket", "unix", 1))


def _understood(read: Callable[..., _Read], *data: bytes) -> _Read | None:
    """What *read* makes of *data*; None if it is not understood."""
    try:
        return read(*data)
    except NotUnderstood as exc:
        logger.warning("left alone: %s", exc, extra={"action": "not_understood"})
        return None


def _mailbox(job_id: JobId) -> str:
    return f"ddit:mailbox:{job_id}"


def _calls(incarnation: Incarnation) -> str:
    return f"ddit:calls:{incarnation}"
