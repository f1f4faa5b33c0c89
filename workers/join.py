"""``ddit.join``: a follower's time in the groups of one job, from its plan until it is released."""

from __future__ import annotations

import logging
import time
import traceback

from celery.exceptions import Ignore
from redis import RedisError

from ddit_batch.dispatch import JOIN_TASK
from ddit_batch.errors import GroupBroken, OutOfMemory
from ddit_batch.phases.device import free_memory
from ddit_batch.phases.models.base import Denoiser
from ddit_batch.phases.sequence_parallel.following import follow
from ddit_batch.phases.sequence_parallel.group import SPGroup
from workers.app import app
from workers.attempt import tell_flower
from workers.dit_runtime import DitRuntime, DitTask
from workers.forming import Formation, Former, Place
from workers.rendezvous import Abandoned
from workers.understanding import addressed

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
"""How often a newcomer asks whether its plan is still open."""
_PAUSE_S = 0.005


@app.task(name=JOIN_TASK, bind=True, base=DitTask)
def join_task(self: DitTask, job_id: str, attempt: int, epoch: int, protocol: int = 0) -> None:
    """Follow the leader of *job_id* from the plan *epoch* on."""
    runtime = self.runtime
    whom = addressed(protocol, job_id=job_id, attempt=attempt, epoch=epoch)
    ids = {"job_id": whom.job_id, "attempt": whom.attempt, "plan_epoch": whom.epoch}
    place = Place(job_id=whom.job_id, attempt=whom.attempt, awaits=whom.epoch)
    with runtime.busy:
        try:
            join(runtime, place, whom.epoch)
        except GroupBroken as exc:
            logger.info("left: %s", exc, extra={"action": "left", **ids})
            tell_flower(exc)
            raise Ignore from exc
        except OutOfMemory as exc:
            # The leader has been told, and ends the attempt by this cause.
            logger.warning("left: %s", exc, extra={"action": "out_of_memory", **ids})
            tell_flower(exc)
            traceback.clear_frames(exc.__traceback__)
            free_memory()
            raise Ignore from exc
    logger.info("released", extra={"action": "released", **ids})


def join(runtime: DitRuntime, place: Place, epoch: int) -> None:
    """Wait for the plan's group and its leader's go; then obey until released.

    Raises:
        GroupBroken: The plan came to nothing, or the group broke.
        OutOfMemory: A step does not fit on this worker's device.
    """
    former = runtime.former
    with former.taking(place):
        formation = _await_go(runtime, former, epoch)
        group = formation.group
        assert group is not None, "a leader says go after all have formed"
        denoiser = runtime.models.part(formation.call.model)
        former.holds_state(place)
        logger.info(
            "joined",
            extra={"action": "joined", "job_id": place.job_id, "plan_epoch": epoch},
        )
        _follow(former, denoiser, formation, group)


def _await_go(runtime: DitRuntime, former: Former, epoch: int) -> Formation:
    next_look_s = time.monotonic()
    while not runtime.stop_requested.is_set():
        formation = former.formation(epoch)
        if formation is None or formation.group is None:
            time.sleep(_PAUSE_S)
        elif formation.rendezvous.await_go(former.me):
            return formation
        if time.monotonic() > next_look_s:
            if not runtime.plans.is_open(epoch):
                raise Abandoned("the plan is over")
            next_look_s = time.monotonic() + _LOOK_S
    raise Abandoned("this worker stops")


def _follow(former: Former, denoiser: Denoiser, begun: Formation, group: SPGroup) -> None:
    """Step with the leader until it lets this worker go."""
    seen, present = [group], begun

    def group_of(epoch: int) -> SPGroup | None:
        nonlocal present
        found = former.group_of(epoch)
        if found is not None:
            seen.append(found)
            former.cache.use(found)
            formation = former.formation(epoch)
            assert formation is not None
            former.taken(formation)
            present = formation
        return found

    former.cache.use(group)
    try:
        follow(denoiser, group, group_of)
    except BaseException as exc:
        if isinstance(exc, OutOfMemory):
            _tell_leader(present, former.me, exc)
        # The others find out by their next exchange; a leader whose change fails closes both.
        for other in seen:
            former.cache.forget(other)
        raise
    finally:
        former.cache.use(None)


def _tell_leader(formation: Formation, me: str, exc: OutOfMemory) -> None:
    """While the leader still waits in the group: else it would take this for a worker that died."""
    try:
        formation.rendezvous.say_out_of_memory(f"on the follower {me}: {exc}")
    except RedisError as away:
        logger.warning("the leader is not told why: %s", away)
