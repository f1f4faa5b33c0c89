"""A leader's change of group that fails leaves nothing behind that could be used again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore

from ddit_batch.errors import GroupBroken, OutOfMemory
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, lone_group
from workers.crew import Crew
from workers.group_cache import Cached, GroupCache


class LostGroup(SPGroup):
    """A group of two whose follower is gone."""

    @property
    def size(self) -> int:
        """The leader, and who was there."""
        return 2

    def order(self, order: Order, *, epoch: int = 0, has_newcomers: bool = False) -> None:
        """Nobody hears it."""
        raise GroupBroken(f"{order} {epoch} {has_newcomers}: the follower is gone")


def lost_group(*members: str) -> SPGroup:
    """Such a group of *members*."""
    group = lone_group(members[0])
    group.__class__ = LostGroup
    group.members = members
    return group


def crew_with_plan(new: SPGroup, old: SPGroup, cache: GroupCache, *, said: str = "") -> Crew:
    """A leader in *old* for whom the plan of *new* stands, in which somebody has *said* something.

    What surrounds it (broker, database, model) has no say in these tests.
    """
    formation = SimpleNamespace(
        group=new,
        epoch=2,
        rendezvous=SimpleNamespace(say_go=lambda _name: None, heard_out_of_memory=lambda: said),
    )
    former: Any = SimpleNamespace(
        me="a",
        cache=cache,
        agreed=lambda *_: formation,
        taken=lambda _: None,
        abandon=lambda _: 0,
    )
    claim: Any = SimpleNamespace(job_id="b-1", attempt=1)
    denoiser: Any = SimpleNamespace(bind=lambda _: None)
    accounts: Any = SimpleNamespace(changed=lambda **_: None)
    crew = Crew(former, claim, denoiser, accounts)
    crew._group = old
    return crew


STATE: Any = SimpleNamespace(step=3)


def test_group_that_breaks_while_it_is_left_is_not_kept_for_later() -> None:
    """Both the one that was left and the one that was to come are closed, and so out of the cache.

    Given a leader in a group whose follower has died, and a plan that stands.
    When it takes the plan.
    Then the group breaks, and neither of the two is given to whoever asks for its members.
    """
    cache, old, new = GroupCache(), lost_group("a", "b"), lost_group("a", "c")
    for key, group in (("old", old), ("new", new)):
        cache.keep(key, Cached(name=key, group=group, store=HashStore()))
    crew = crew_with_plan(new, old, cache)

    with pytest.raises(GroupBroken):
        crew.step_from(STATE)
    crew.fall_back(STATE)

    assert cache.get("old") is None
    assert cache.get("new") is None


def test_follower_without_memory_ends_the_attempt_by_that_cause() -> None:
    """It is no member that died: the next group of that size would break too.

    Given a leader whose group has broken after a follower had said that its memory is full.
    When the leader falls back.
    Then what the follower said is what the attempt ends of, and it is said once.
    """
    crew = crew_with_plan(
        lost_group("a", "c"), lost_group("a", "b"), GroupCache(), said="on c: no memory left"
    )
    with pytest.raises(GroupBroken):
        crew.step_from(STATE)

    with pytest.raises(OutOfMemory, match="on c: no memory left"):
        crew.fall_back(STATE)

    crew.fall_back(STATE)
