"""What leader and followers of a group do at a step boundary, from both sides.

The leader's loop is ``phases.dit.denoise``; its boundary gives one order to a group of more than
one, each time: STEP before every step, CHANGE by ``change_group``, END when it goes on alone or not
at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from ddit_batch.errors import GroupBroken
from ddit_batch.phases.device import inference, synchronize
from ddit_batch.phases.models.base import Denoiser, DenoisingState
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, lone_group
from ddit_batch.phases.sequence_parallel.transfer import receive_state, send_state

GroupOf = Callable[[int], SPGroup | None]
"""The group of a plan epoch, which has formed; None if this worker is not in it."""


def follow(denoiser: Denoiser, group: SPGroup, group_of: GroupOf) -> None:
    """Follow the leader of *group* as a newcomer: get the state, then do as it says to the end.

    Returns when the leader ends the group or changes to one that this worker is not in. *denoiser*
    is alone again then, however this ends. Closing the groups is the caller's, and after an error
    it is urgent: the others may wait for this worker in a group until it is closed.

    Raises:
        GroupBroken: A member of the present group is gone. There is nothing to save here: the
            leader goes on from its own state.
        OutOfMemory: A step does not fit on the device; so the others' group breaks.
        PhaseError: This worker cannot take part in such a step.
    """
    me = group.members[group.rank]
    try:
        with inference(f"following {group.members[0]}"):
            group.await_welcome()
            state = receive_state(group, denoiser)
            _obey(denoiser, group, state, group_of)
    finally:
        denoiser.bind(lone_group(me))


def change_group(
    denoiser: Denoiser,
    state: DenoisingState,
    old: SPGroup,
    new: SPGroup,
    *,
    epoch: int,
    has_newcomers: bool,
) -> None:
    """Go over from *old* to *new* at a step boundary, taking the followers along. For the leader.

    Members that hold the state only learn of the change. *has_newcomers* has it sent to everybody
    in *new*, of whom those that are not in *old* wait in ``follow``. Closing *old* afterwards is
    the caller's.

    Raises:
        GroupBroken: A member of *old* or *new* is gone. Both are closed then, since members may
            wait in either. *state* is good: bind the lone group and go on.
    """
    try:
        if not old.is_lone:
            old.order(Order.CHANGE, epoch=epoch, has_newcomers=has_newcomers)
        denoiser.bind(new)
        if has_newcomers:
            new.welcome(set(new.members) - set(old.members))
            send_state(new, state)
    except GroupBroken:
        for group in (old, new):
            group.close(abort=True)
        raise


def _obey(denoiser: Denoiser, group: SPGroup, state: DenoisingState, group_of: GroupOf) -> None:
    denoiser.bind(group)
    while True:
        heard = group.await_order()
        match heard.order:
            case Order.STEP:
                state = denoiser.step(state)
                synchronize(state.latents.device)
            case Order.CHANGE:
                found = group_of(heard.epoch)
                if found is None:
                    return
                group = found
                denoiser.bind(group)
                if heard.has_newcomers:
                    state = receive_state(group, denoiser)
            case Order.END:
                return
            case _:
                assert_never(heard.order)
