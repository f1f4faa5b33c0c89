from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from random_clusters import Scene, scenes

from ddit_batch.job import Phase
from ddit_batch.policy.roster import Roster, roster_of


@given(scenes, st.randoms(use_true_random=False))
def test_workers_are_of_one_room_if_they_are_alike(scene: Scene, dice: object) -> None:
    """On the same node, with the same models; whoever cannot be given DiT work is in none."""
    workers = list(scene.world.workers)
    dice.shuffle(workers)
    able = {w.name: w for w in workers if w.phase is Phase.DIT and not w.draining}

    roster = roster_of(workers)
    rooms = roster.rooms

    assert rooms.of.keys() == able.keys()
    assert [name for here in rooms.names for name in sorted(here)] == list(
        dict.fromkeys(name for here in rooms.names for name in here)
    )
    for one in able.values():
        assert one.name in rooms.names[rooms.of[one.name]]
        assert rooms.serves[rooms.of[one.name]] == one.models
        for other in able.values():
            alike = (one.node, one.models) == (other.node, other.models)
            assert alike == (rooms.of[one.name] == rooms.of[other.name])
    assert rooms == Roster(scene.world.workers).rooms


@given(scenes, st.randoms(use_true_random=False))
def test_workers_that_do_not_count_leave_the_others_where_they_are(
    scene: Scene, dice: object
) -> None:
    """And nothing changes about the rooms of the whole roster."""
    all_rooms = roster_of(scene.world.workers).rooms
    before = replace(all_rooms, of=dict(all_rooms.of), sizes=list(all_rooms.sizes))
    gone = {name for name in all_rooms.of if dice.random() < 0.5}

    left = all_rooms.without(gone)

    assert left.of == {name: room for name, room in all_rooms.of.items() if name not in gone}
    assert list(left.sizes) == [len(set(here) - gone) for here in left.names]
    assert all_rooms == before
