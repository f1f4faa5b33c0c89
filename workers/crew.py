"""The leader's side of its group: who steps with it, and what if that changes or breaks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis import RedisError

from ddit_batch.db.claim import Claim
from ddit_batch.errors import GroupBroken, OutOfMemory
from ddit_batch.job import WorkerName
from ddit_batch.phases.models.base import Denoiser, DenoisingState
from ddit_batch.phases.sequence_parallel.following import change_group
from ddit_batch.phases.sequence_parallel.group import Order, SPGroup, lone_group
from workers.accounts import Accounts
from workers.forming import Formation, Former, Place

logger = logging.getLogger(__name__)

FIRST_GROUP_S = 1.0
"""How long the first step waits for the group that the job was sent to: forming it with idle
workers takes tens of milliseconds, and a step alone could take as long as eight together."""


class Crew:
    """The workers that denoise one attempt together, as its leader sees them."""

    def __init__(
        self, former: Former, claim: Claim, denoiser: Denoiser, accounts: Accounts
    ) -> None:
        self._former = former
        self._claim = claim
        self._denoiser = denoiser
        self._accounts = accounts
        self._epoch = 0
        self._group = lone_group(former.me)
        self._formation: Formation | None = None

    @property
    def claim_lost(self) -> bool:
        """Whether a write of its segments has found that the job is somebody else's now."""
        return self._accounts.claim_lost

    def gather(self) -> None:
        """Before the first step: wait a moment for the group that the job was sent to."""
        claim = self._claim
        self._former.await_agreed(claim.job_id, claim.attempt, timeout_s=FIRST_GROUP_S)

    def step_from(self, state: DenoisingState) -> None:
        """At a boundary: take the plan that stands, if there is one; then all take a step.

        Raises:
            GroupBroken: A member is gone or hangs; call ``fall_back``.
        """
        formation = self._former.agreed(self._claim.job_id, self._claim.attempt)
        if formation is not None:
            self._take(formation, state)
        self._group.order(Order.STEP)

    def end(self) -> None:
        """Let the followers go: there is no further step."""
        group = self._group
        self._be_alone()
        try:
            group.order(Order.END)
        except GroupBroken:
            self._former.cache.forget(group)

    def fall_back(self, state: DenoisingState) -> None:
        """The group is broken: go on alone from *state*. What forms for this job is given up.

        Raises:
            OutOfMemory: It broke because the memory of a follower is full. What a group of this
                size cannot do, fewer workers cannot either, and another such group would break too.
        """
        broken = self._group
        self._be_alone()
        self._former.cache.forget(broken)
        # A plan that stands already is used up by this: nobody must wait for it any more.
        self._epoch = max(self._epoch, self._former.abandon(self._claim.job_id))
        logger.warning(
            "group broken, goes on alone from step %s",
            state.step,
            extra={"action": "group_broken", **self._ids},
        )
        self._record(state.step, "group_broken")
        if said := self._heard_out_of_memory():
            raise OutOfMemory(said)

    def desert(self) -> None:
        """The attempt ends by an error: the followers may be in the middle of a step."""
        if self._group.size > 1:
            self._former.cache.forget(self._group)
        self._be_alone()

    def _take(self, formation: Formation, state: DenoisingState) -> None:
        old, new = self._group, formation.group
        assert new is not None, "a plan is agreed on after its group has formed"
        newcomers = [name for name in new.members if name not in old.members]
        for name in newcomers:
            formation.rendezvous.say_go(name)
        # From here on the new group is the one that breaks, and the plan is used up.
        self._group, self._epoch, self._formation = new, formation.epoch, formation
        self._former.cache.use(new)
        self._former.taken(formation)
        try:
            change_group(
                self._denoiser,
                state,
                old,
                new,
                epoch=formation.epoch,
                has_newcomers=bool(newcomers),
            )
        except GroupBroken:
            self._former.cache.forget(old)  # closed with the new one: not to be used again
            raise
        logger.info(
            "group of %s from step %s",
            new.size,
            state.step,
            extra={"action": "group_changed", "dop": new.size, **self._ids},
        )
        self._record(state.step, _reason(old, new))

    def _heard_out_of_memory(self) -> str:
        """What a follower of the group that broke has said of its memory; empty: nothing."""
        formation, self._formation = self._formation, None
        try:
            return "" if formation is None else formation.rendezvous.heard_out_of_memory()
        except RedisError as exc:
            logger.warning("broker away: %s", exc, extra={"action": "broker_away"})
            return ""

    def _be_alone(self) -> None:
        self._group = lone_group(self._former.me)
        self._former.cache.use(None)
        self._denoiser.bind(self._group)

    def _record(self, step: int, reason: str) -> None:
        workers = tuple(map(WorkerName, self._group.members))
        self._accounts.changed(epoch=self._epoch, workers=workers, step=step, reason=reason)

    @property
    def _ids(self) -> dict[str, object]:
        claim = self._claim
        return {"job_id": claim.job_id, "attempt": claim.attempt, "plan_epoch": self._epoch}


@contextmanager
def leading(former: Former, claim: Claim, denoiser: Denoiser, accounts: Accounts) -> Iterator[Crew]:
    """The crew of an attempt; whatever ends the block, no follower is left behind."""
    crew = Crew(former, claim, denoiser, accounts)
    place = Place(job_id=claim.job_id, attempt=claim.attempt, claim=claim)
    with former.taking(place):
        try:
            yield crew
        finally:
            crew.desert()
            accounts.close()


def _reason(old: SPGroup, new: SPGroup) -> str:
    """The word for what became of the group, for ``segments.reason``."""
    before, after = set(old.members), set(new.members)
    if before < after:
        return "grow"
    return "shrink" if after < before else "change"
