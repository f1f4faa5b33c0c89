"""Members of a plan meet in the broker: a c10d store, and what they say of themselves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch
from redis import Redis
from torch.distributed import PrefixStore, ProcessGroupGloo

from workers.rendezvous import KEYS_TTL_S, Abandoned, BrokerStore, Rendezvous, connect

EPOCHS = itertools.count(1)

MakeStore = Callable[[], BrokerStore]


@pytest.fixture
def redis(broker_url: str) -> Iterator[Redis]:
    """The connections of one worker."""
    with connect(broker_url) as client:
        yield client


@pytest.fixture
def abandoned() -> threading.Event:
    """Set when a plan is given up."""
    return threading.Event()


@pytest.fixture
def make_store(redis: Redis, abandoned: threading.Event) -> MakeStore:
    """Makes stores that share their keys, as those of the members of one plan do."""
    prefix = f"test:{next(EPOCHS)}"
    return lambda: BrokerStore(redis, prefix, timeout_s=5.0, abandoned=abandoned)


@pytest.fixture
def meeting(redis: Redis, abandoned: threading.Event) -> Rendezvous:
    """The meeting of one plan, as one of its members sees it."""
    return Rendezvous(redis, -next(EPOCHS), timeout_s=5.0, abandoned=abandoned)


def test_what_one_member_writes_another_reads(make_store: MakeStore) -> None:
    """Bytes come back as they were, whichever call wrote them."""
    mine, theirs = make_store(), make_store()

    mine.set("text", "one")
    mine.set("bytes", b"\x00\xff")
    mine.multi_set(["a", "b"], ["1", "2"])
    mine.append("a", "3")

    assert theirs.get("text") == b"one"
    assert theirs.multi_get(["bytes", "a", "b"]) == [b"\x00\xff", b"13", b"2"]
    assert (mine.add("count", 2), theirs.add("count", 3)) == (2, 5)
    assert theirs.check(["text", "a"])
    assert not theirs.check(["text", "nothing"])
    assert theirs.delete_key("text")
    assert not mine.check(["text"])


@pytest.mark.parametrize(
    ("held", "expected", "then"),
    [(None, "", b"new"), ("old", "old", b"new"), ("other", "old", b"other"), ("old", "", b"old")],
)
def test_compare_set_writes_only_over_what_was_expected(
    make_store: MakeStore, held: str | None, expected: str, then: bytes
) -> None:
    """An empty expectation means that nothing is there."""
    store = make_store()
    if held is not None:
        store.set("key", held)

    assert store.compare_set("key", expected, "new") == then
    assert store.get("key") == then


def test_wait_ends_when_the_key_comes(make_store: MakeStore) -> None:
    """However long another member took to write it."""
    mine, theirs = make_store(), make_store()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(mine.get, "late")
        time.sleep(0.1)
        assert not waiting.done()

        theirs.set("late", "here")

        assert waiting.result(timeout=1.0) == b"here"


def test_wait_ends_when_the_plan_is_given_up(
    make_store: MakeStore, abandoned: threading.Event
) -> None:
    """A thread that forms a group that nobody wants any more is free at once."""
    store = make_store()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(store.get, "never")

        abandoned.set()

        with pytest.raises(Abandoned, match="given up"):
            waiting.result(timeout=1.0)


def test_wait_ends_after_its_time(make_store: MakeStore) -> None:
    """A member that died does not hold up the others for ever."""
    with pytest.raises(Abandoned, match=r"never of test:.* did not come in 0.05 s"):
        make_store().wait(["never"], timedelta(seconds=0.05))


def test_keys_vanish_by_themselves(make_store: MakeStore, redis: Redis) -> None:
    """Whatever writes a key gives it an end: nobody may be left to delete it."""
    store = make_store()
    store.set("set", "1")
    store.add("add", 1)
    store.append("append", "1")
    store.compare_set("compare", "", "1")

    ends_s = [redis.ttl(store._key(key)) for key in ("set", "add", "append", "compare")]

    assert store.num_keys() == 4
    assert all(0 < end_s <= KEYS_TTL_S for end_s in ends_s)


def test_gloo_group_forms_over_the_broker(make_store: MakeStore) -> None:
    """What torch asks of a store is all there: three members sum their numbers."""

    def member(rank: int) -> float:
        store = make_store()  # torch keeps what is C++ in it alive, not what is Python
        group = ProcessGroupGloo(PrefixStore("group", store), rank, 3, timedelta(seconds=5))
        number = torch.tensor([float(rank + 1)])
        group.allreduce([number]).wait()
        return float(number)

    with ThreadPoolExecutor(max_workers=3) as pool:
        assert list(pool.map(member, range(3))) == [6.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("cached", "is_common"),
    [(("g1", "g1"), True), (("g1", "g2"), False), (("g1", ""), False), (("", ""), False)],
)
def test_cached_group_is_used_only_if_all_have_it(
    redis: Redis, abandoned: threading.Event, cached: tuple[str, str], *, is_common: bool
) -> None:
    """One that has dropped it, or never had it, makes all form a new one."""
    epoch = -next(EPOCHS)

    def member(rank: int) -> bool:
        meeting = Rendezvous(redis, epoch, timeout_s=5.0, abandoned=abandoned)
        return meeting.agree_on_cached(rank, 2, cached[rank])

    with ThreadPoolExecutor(max_workers=2) as pool:
        assert list(pool.map(member, range(2))) == [is_common, is_common]


def test_leader_waits_until_all_are_ready(meeting: Rendezvous) -> None:
    """One that says so twice counts once."""
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(meeting.await_ready, ["a", "b"], timeout_s=5.0)
        meeting.say_ready("a")
        meeting.say_ready("a")
        time.sleep(0.05)
        assert not waiting.done()

        meeting.say_ready("b")

        waiting.result(timeout=1.0)


def test_member_that_is_late_is_named(meeting: Rendezvous) -> None:
    """The log of the leader says for whom it waited in vain."""
    meeting.say_ready("a")

    with pytest.raises(Abandoned, match=r"not ready within 0.05 s: b, c"):
        meeting.await_ready(["a", "b", "c"], timeout_s=0.05)


def test_go_is_for_one_newcomer(meeting: Rendezvous) -> None:
    """The others go on waiting; it counts once."""
    meeting.say_go("a")

    assert not meeting.await_go("b")
    assert meeting.await_go("a")
    assert not meeting.await_go("a")


def test_newcomer_stops_to_wait_when_the_plan_is_given_up(
    meeting: Rendezvous, abandoned: threading.Event
) -> None:
    """It does not take a go that comes too late."""
    abandoned.set()
    meeting.say_go("a")

    with pytest.raises(Abandoned):
        meeting.await_go("a")


def test_leader_hears_that_a_member_has_no_memory_left(meeting: Rendezvous) -> None:
    """It may ask more than once; before anybody has said so there is nothing to hear."""
    assert meeting.heard_out_of_memory() == ""

    meeting.say_out_of_memory("on dit-1@host: denoising 64x64x9 does not fit")

    said = [meeting.heard_out_of_memory() for _ in range(2)]
    assert said == ["on dit-1@host: denoising 64x64x9 does not fit"] * 2
