"""Live control over Valkey/Redis: mailboxes, step progress, and a look at what the broker holds.

Nothing here is the truth: an empty mailbox means no change, progress is on its way to Postgres, and
all of it may vanish at any moment and be made again. So callers treat a broker that is away
(``redis.RedisError``) as "nothing new".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ddit_batch.job import JobId, WorkerName
from ddit_batch.snapshot import Instruction, Progress

_PROGRESS = "ddit:progress"
MAILBOX_TTL_S = 60
"""A mailbox nobody rewrites for this long is void; the scheduler rewrites it at every decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The contents of a job's mailbox: state, not a message. It may be read any number of times."""

    attempt: int
    """The attempt that it is meant for."""
    instruction: Instruction
    group: tuple[WorkerName, ...]


class LiveControl:
    """A connection to the broker, for everything that is not a Celery message."""

    def __init__(self, broker_url: str) -> None:
        self._redis: Redis = Redis.from_url(
            redis_url(broker_url),
            socket_timeout=1.0,
            socket_connect_timeout=1.0,
            retry=Retry(NoBackoff(), 1),
            decode_responses=True,
        )

    def close(self) -> None:
        """Give the connection back."""
        self._redis.close()

    def ping(self) -> None:
        """Raise ``redis.RedisError`` if the broker does not answer."""
        self._redis.ping()

    def write_letter(self, job_id: JobId, letter: Letter) -> None:
        """Put *letter* into the job's mailbox, in place of what was there."""
        self._redis.set(_mailbox(job_id), json.dumps(asdict(letter)), ex=MAILBOX_TTL_S)

    def read_letter(self, job_id: JobId) -> Letter | None:
        """What the job's mailbox holds, if anything. About 60 us beside a step of seconds."""
        found = self._redis.get(_mailbox(job_id))
        return None if found is None else _letter(str(found))

    def read_letters(self, job_ids: Iterable[JobId]) -> dict[JobId, Letter]:
        """What the mailboxes of several jobs hold; one that is empty is left out."""
        asked = list(job_ids)
        found = self._redis.mget([_mailbox(job_id) for job_id in asked]) if asked else []
        return {
            job_id: _letter(str(text))
            for job_id, text in zip(asked, found, strict=True)
            if text is not None
        }

    def report(self, job_id: JobId, progress: Progress) -> None:
        """Say how far a job is."""
        self._redis.hset(_PROGRESS, job_id, json.dumps(asdict(progress)))

    def reports(self) -> dict[JobId, Progress]:
        """How far all jobs are that have said so."""
        found = self._redis.hgetall(_PROGRESS)
        return {JobId(str(job)): Progress(**json.loads(text)) for job, text in found.items()}

    def forget_reports(self, job_ids: Iterable[JobId]) -> None:
        """Drop what was said of jobs that are not denoised any more."""
        if gone := list(job_ids):
            self._redis.hdel(_PROGRESS, *gone)

    def waiting_task_ids(self, queues: Iterable[str]) -> frozenset[str]:
        """The ids of the Celery messages that wait in *queues*, taken by no worker yet."""
        return frozenset(
            json.loads(message)["headers"]["id"]
            for queue in queues
            for message in self._redis.lrange(queue, 0, -1)
        )


def redis_url(broker_url: str) -> str:
    """The URL by which the redis client knows what Celery calls *broker_url*."""
    if not broker_url.startswith("redis+socket://"):
        return broker_url
    return re.sub("(?<=[?&])virtual_host=/?", "db=", broker_url.replace("redis+socket", "unix", 1))


def _letter(text: str) -> Letter:
    fields = json.loads(text)
    return Letter(
        attempt=fields["attempt"],
        instruction=Instruction(fields["instruction"]),
        group=tuple(fields["group"]),
    )


def _mailbox(job_id: JobId) -> str:
    return f"ddit:mailbox:{job_id}"
