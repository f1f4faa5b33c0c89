"""Groups are kept for later, but not for ever, and a broken one is never given again."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore

from ddit_batch.phases.sequence_parallel.group import SPGroup, lone_group
from workers.group_cache import KEPT, Cached, GroupCache


class WatchedGroup(SPGroup):
    """A group of one that says whether it was closed."""

    closed: bool = False
    aborted: bool = False

    def close(self, *, abort: bool = False) -> None:
        """Note it."""
        self.closed, self.aborted = True, abort


def a_group(name: str) -> Cached:
    """A formed group by that name."""
    group = lone_group(name)
    group.__class__ = WatchedGroup
    return Cached(name=name, group=group, store=HashStore())


def was_closed(cached: Cached) -> bool:
    """Whether its group was closed."""
    assert isinstance(cached.group, WatchedGroup)
    return cached.group.closed


@pytest.fixture
def cache() -> GroupCache:
    """An empty cache."""
    return GroupCache()


def test_group_is_found_by_its_members(cache: GroupCache) -> None:
    """And by nobody else's."""
    kept = a_group("ab")
    cache.keep(("a", "b"), kept)

    assert cache.get(("a", "b")) is kept
    assert cache.get(("b", "a")) is None


def test_group_that_was_not_wanted_for_longest_goes(cache: GroupCache) -> None:
    """One that was asked for meanwhile stays."""
    groups = [a_group(str(i)) for i in range(KEPT + 1)]
    for i, group in enumerate(groups[:KEPT]):
        cache.keep(i, group)
    cache.get(0)

    cache.keep(KEPT, groups[KEPT])

    assert [i for i, group in enumerate(groups) if was_closed(group)] == [1]
    assert cache.get(1) is None
    assert cache.get(0) is groups[0]


def test_group_in_use_does_not_go_by_age(cache: GroupCache) -> None:
    """However many others have formed since."""
    used = a_group("used")
    cache.keep("used", used)
    cache.use(used.group)

    for i in range(3 * KEPT):
        cache.keep(i, a_group(str(i)))

    assert not was_closed(used)
    assert cache.get("used") is used


def test_broken_group_is_aborted_and_gone(cache: GroupCache) -> None:
    """Those who ask for the same members form a new one."""
    broken = a_group("broken")
    cache.keep("key", broken)

    cache.forget(broken.group)

    assert cache.get("key") is None
    assert isinstance(broken.group, WatchedGroup)
    assert broken.group.aborted


def test_group_that_was_never_kept_can_be_forgotten(cache: GroupCache) -> None:
    """It is closed all the same."""
    other = a_group("other")

    cache.forget(other.group)

    assert was_closed(other)


def test_clear_closes_all(cache: GroupCache) -> None:
    """Nothing is left open when the worker ends."""
    groups = [a_group(str(i)) for i in range(3)]
    for i, group in enumerate(groups):
        cache.keep(i, group)

    cache.clear()

    assert all(map(was_closed, groups))
    assert cache.get(0) is None
