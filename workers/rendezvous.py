"""Where the members of a plan meet: a few keys in the broker, gone after a while by themselves.

``BrokerStore`` is the c10d store by which a process group finds its peers, so that no server of
ours stands between the workers. ``Rendezvous`` adds what members must know of each other before
they dare to use the group: which group each has cached, who is ready, and the leader's "go".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from torch.distributed.distributed_c10d import Store

from ddit_batch.control import redis_url
from ddit_batch.errors import GroupBroken

KEYS_TTL_S = 300
"""Keys of a rendezvous vanish by themselves: nobody may be left to delete them."""

_SOCKET_TIMEOUT_S = 2.0
_BLOCK_S = 0.25
"""How long a wait blocks in the broker before it looks whether it still makes sense."""
_POLL_S = (0.0005, 0.02)
"""First and longest pause between two looks for a key."""


class Abandoned(GroupBroken):
    """The rendezvous was given up: its plan is over, or it took too long."""


def connect(broker_url: str) -> Redis:
    """A pool of connections for rendezvous, of bytes."""
    return Redis.from_url(
        redis_url(broker_url),
        socket_timeout=_SOCKET_TIMEOUT_S,
        socket_connect_timeout=_SOCKET_TIMEOUT_S,
        retry=Retry(NoBackoff(), 1),
    )


class BrokerStore(Store):
    """A c10d store over keys with one *prefix*, which live for ``KEYS_TTL_S``.

    Every wait ends when *abandoned* is set or *timeout_s* is over, with ``Abandoned``.
    """

    def __init__(
        self, redis: Redis, prefix: str, *, timeout_s: float, abandoned: threading.Event
    ) -> None:
        super().__init__()
        self._redis = redis
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._abandoned = abandoned

    def set(self, key: str, value: str | bytes | bytearray) -> None:
        """Write *value*."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._redis.set(self._key(key), data, ex=KEYS_TTL_S)

    def get(self, key: str) -> bytes:
        """The value of *key*, once it is there."""
        return self.multi_get([key])[0]

    def add(self, key: str, amount: int) -> int:
        """Add *amount* to the number at *key*; the sum."""
        total = int(self._redis.incrby(self._key(key), amount))
        self._redis.expire(self._key(key), KEYS_TTL_S)
        return total

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all of *keys* are there."""
        return int(self._redis.exists(*map(self._key, keys))) == len(set(keys))

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Write *desired* if *key* holds *expected* (empty: nothing); what it holds then."""
        if not expected and self._redis.set(
            self._key(key), desired.encode(), ex=KEYS_TTL_S, nx=True
        ):
            return desired.encode()
        found = cast("bytes", self._redis.get(self._key(key)) or b"")
        if found == expected.encode():
            self.set(key, desired)
            return desired.encode()
        return found

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all of *keys* are there.

        Raises:
            Abandoned: The rendezvous was given up, or the time is over.
        """
        limit_s = self._timeout_s if timeout is None else timeout.total_seconds()
        deadline_s = time.monotonic() + limit_s
        pause_s, longest_s = _POLL_S
        while not self.check(keys):
            if self._abandoned.wait(pause_s):
                raise Abandoned(f"the rendezvous {self._prefix} was given up")
            if time.monotonic() > deadline_s:
                raise Abandoned(f"{', '.join(keys)} of {self._prefix} did not come in {limit_s} s")
            pause_s = min(1.5 * pause_s, longest_s)

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """The values of *keys*, once all are there."""
        self.wait(keys)
        return cast("list[bytes]", self._redis.mget([self._key(key) for key in keys]))

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        """Write several values."""
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def append(self, key: str, value: str | bytes) -> None:
        """Write *value* behind what *key* holds."""
        self._redis.append(self._key(key), value)
        self._redis.expire(self._key(key), KEYS_TTL_S)

    def delete_key(self, key: str) -> bool:
        """Forget *key*; whether it was there."""
        return bool(self._redis.delete(self._key(key)))

    def num_keys(self) -> int:
        """How many keys the prefix has; slow, for torch's own diagnostics."""
        return sum(1 for _ in self._redis.scan_iter(f"{self._prefix}/*"))

    def has_extended_api(self) -> bool:
        """``append``, ``multi_get`` and ``multi_set`` exist."""
        return True

    def set_timeout(self, timeout: timedelta) -> None:
        """From now on wait so long at most."""
        self._timeout_s = timeout.total_seconds()

    @property
    def timeout(self) -> timedelta:
        """How long a wait may last."""
        return timedelta(seconds=self._timeout_s)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}"


class Rendezvous:
    """The meeting of the members of one plan."""

    def __init__(
        self, redis: Redis, epoch: int, *, timeout_s: float, abandoned: threading.Event
    ) -> None:
        self._redis = redis
        self._prefix = f"ddit:group:{epoch}"
        self._abandoned = abandoned
        self.store = BrokerStore(redis, self._prefix, timeout_s=timeout_s, abandoned=abandoned)
        """For ``form_group``."""

    def agree_on_cached(self, rank: int, size: int, cached: str) -> bool:
        """Say which group this member has *cached*; whether all members have that very one.

        Raises:
            Abandoned: Not all members came.
        """
        self.store.set(f"cached/{rank}", cached or "-")
        said = self.store.multi_get([f"cached/{other}" for other in range(size)])
        return bool(cached) and set(said) == {cached.encode()}

    def say_ready(self, name: str) -> None:
        """This member could take its next step in the new group."""
        self._push("ready", name)

    def await_ready(self, names: Iterable[str], *, timeout_s: float) -> None:
        """Wait until all of *names* are ready.

        Raises:
            Abandoned: The rendezvous was given up, or the time is over.
        """
        missing = set(names)
        deadline_s = time.monotonic() + timeout_s
        while missing:
            missing.discard(self._pop("ready"))
            if missing and time.monotonic() > deadline_s:
                late = ", ".join(sorted(missing))
                raise Abandoned(f"not ready within {timeout_s} s: {late}")

    def say_out_of_memory(self, message: str) -> None:
        """Tell the leader, before the group breaks by it, that this member's memory is full."""
        self._push("out-of-memory", message)

    def heard_out_of_memory(self) -> str:
        """What a member has said of its memory; empty: nothing."""
        return cast("bytes", self._redis.lindex(f"{self._prefix}/out-of-memory", 0) or b"").decode(
            errors="replace"
        )

    def say_go(self, name: str) -> None:
        """Tell the newcomer *name* that the next thing in the group is the state, for it."""
        self._push(f"go/{name}", "go")

    def await_go(self, name: str) -> bool:
        """Wait a moment for the leader's go; False: not yet.

        Raises:
            Abandoned: The rendezvous was given up.
        """
        return self._pop(f"go/{name}") == "go"

    def _push(self, key: str, word: str) -> None:
        with self._redis.pipeline() as pipeline:
            pipeline.rpush(f"{self._prefix}/{key}", word)
            pipeline.expire(f"{self._prefix}/{key}", KEYS_TTL_S)
            pipeline.execute()

    def _pop(self, key: str) -> str:
        """The next word at *key*; empty if none comes within a moment."""
        if self._abandoned.is_set():
            raise Abandoned(f"the rendezvous {self._prefix} was given up")
        found = self._redis.blpop([f"{self._prefix}/{key}"], timeout=_BLOCK_S)
        return "" if found is None else cast("bytes", found[1]).decode(errors="replace")
