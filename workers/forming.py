"""How this worker comes into groups while its task thread goes on: calls, formations, the cache.

Theory of operation. The scheduler *calls* every member of a plan. A thread of this process hears
the call and starts another that meets the other members (``rendezvous.py``) and forms a process
group with them, or takes the one that all of them still have. Then it waits until this worker is in
its *place* for that job: a task of it holds the job's state, or waits to be given it. Now it is
*ready*, and says so. The leader's thread waits until all are ready and asks Postgres to let the
plan stand: from then on the plan is *agreed*, and the leader's step loop takes it at its next
boundary. Nothing of this holds up a step, and whatever fails only costs its plan: the leader says
that it was not formed, and the scheduler plans anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from redis import Redis, RedisError
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.control import LiveControl
from ddit_batch.db.claim import Claim
from ddit_batch.db.plans import PlanStore
from ddit_batch.errors import DditError
from ddit_batch.job import Incarnation, JobId, WorkerName
from ddit_batch.messages import Call
from ddit_batch.model_config import Parallelism
from ddit_batch.phases.sequence_parallel.group import SPGroup, form_group
from workers.group_cache import Cached, GroupCache
from workers.rendezvous import Abandoned, Rendezvous

logger = logging.getLogger(__name__)

_LISTEN_S = 1.0
"""How long one wait for a call blocks in the broker."""
_LOOK_S = 0.5
"""How often a formation that waits for its place asks whether its plan is still open."""
_REMEMBERED_EPOCHS = 1024
"""Calls come again while their plan is pending; so many epochs are known to have been heard."""

_PASSING = (DditError, RuntimeError, RedisError, SQLAlchemyError)
"""What may go wrong while a group forms; a RuntimeError is torch's word for a peer that is gone."""


@dataclass(slots=True, kw_only=True, eq=False)
class Place:
    """What a task of this worker is to one job, as the leader's or a follower's."""

    job_id: JobId
    attempt: int
    claim: Claim | None = None
    """The leader's."""
    awaits: int | None = None
    """The plan in which a newcomer waits to be given the state; None: this worker holds it."""


@dataclass(slots=True, kw_only=True, eq=False)
class Formation:
    """One plan, as far as this worker has come with it."""

    call: Call
    rendezvous: Rendezvous
    abandoned: threading.Event
    """Set when the plan is over or could not be formed."""
    group: SPGroup | None = None
    """The group, once it is formed."""
    agreed: threading.Event = field(default_factory=threading.Event)
    """Set in the leader when the plan stands: it must be taken at the next boundary."""

    @property
    def epoch(self) -> int:
        """The plan's."""
        return self.call.epoch

    def is_of(self, job_id: JobId, attempt: int) -> bool:
        """Whether it is a plan of this attempt."""
        return self.call.job_id == job_id and self.call.attempt == attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for others, in seconds."""

    form_s: float
    """For the members of a plan, until it is dropped."""
    group_s: float
    """For a member within a collective, until the group is broken."""


class Former:
    """All formations of one worker process. Its methods may be called from any thread."""

    def __init__(
        self,
        *,
        me: WorkerName,
        incarnation: Callable[[], Incarnation],
        parallelism_of: Callable[[str], Parallelism],
        device: torch.device,
        control: LiveControl,
        redis: Redis,
        plans: PlanStore,
        patience: Patience,
    ) -> None:
        self.me = me
        self.cache = GroupCache()
        self._incarnation = incarnation
        self._parallelism_of = parallelism_of
        self._device = device
        self._control = control
        self._redis = redis
        self._plans = plans
        self._patience = patience
        self._changed = threading.Condition()
        self._formations: dict[int, Formation] = {}
        self._heard: OrderedDict[int, None] = OrderedDict()
        self._place: Place | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="calls", daemon=True)

    def start(self) -> None:
        """Begin to listen for calls."""
        self._thread.start()

    def stop(self) -> None:
        """Hear nothing more, give up what forms, and close all groups."""
        self._stopping.set()
        with self._changed:
            for formation in self._formations.values():
                formation.abandoned.set()
        self._thread.join(timeout=_LISTEN_S + 1)
        self.cache.clear()

    @contextmanager
    def taking(self, place: Place) -> Iterator[None]:
        """Be in *place* for the length of the block; then its job's formations are over."""
        with self._changed:
            self._place = place
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._place = None
            self.abandon(place.job_id)

    def holds_state(self, place: Place) -> None:
        """The newcomer in *place* is given the state: it is ready for whatever comes next."""
        with self._changed:
            place.awaits = None
            self._changed.notify_all()

    def formation(self, epoch: int) -> Formation | None:
        """The formation of a plan; None: no call has come, or it is over."""
        with self._changed:
            return self._formations.get(epoch)

    def group_of(self, epoch: int) -> SPGroup | None:
        """The group of a plan, once it is formed; None: this worker is not in it."""
        found = self.formation(epoch)
        return None if found is None else found.group

    def agreed(self, job_id: JobId, attempt: int) -> Formation | None:
        """The plan of this attempt that stands and was not taken yet."""
        with self._changed:
            return next((f for f in self._of(job_id, attempt) if f.agreed.is_set()), None)

    def await_agreed(self, job_id: JobId, attempt: int, *, timeout_s: float) -> None:
        """Wait until a plan of this attempt stands; no longer than one is under way."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    any(f.agreed.is_set() for f in self._of(job_id, attempt))
                    or not self._of(job_id, attempt)
                ),
                timeout_s,
            )

    def taken(self, formation: Formation) -> None:
        """The plan is in effect: it and those before it are done with."""
        with self._changed:
            for other in self._of(formation.call.job_id, formation.call.attempt):
                if other.epoch <= formation.epoch:
                    del self._formations[other.epoch]

    def abandon(self, job_id: JobId) -> int:
        """Give up all that forms for a job. Returns the newest of their epochs; 0: none."""
        with self._changed:
            given_up = [f for f in self._formations.values() if f.call.job_id == job_id]
            for formation in given_up:
                self._give_up(formation)
            return max((formation.epoch for formation in given_up), default=0)

    def _of(self, job_id: JobId, attempt: int) -> list[Formation]:
        return [f for f in self._formations.values() if f.is_of(job_id, attempt)]

    def _give_up(self, formation: Formation) -> None:
        formation.abandoned.set()
        self._formations.pop(formation.epoch, None)
        self._changed.notify_all()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                call = self._control.next_call(self._incarnation(), timeout_s=_LISTEN_S)
            except RedisError as exc:
                logger.debug("broker away, no calls: %s", exc)
                self._stopping.wait(_LISTEN_S)
                continue
            if call is not None and self._is_for_me(call):
                self._hear(call)

    def _is_for_me(self, call: Call) -> bool:
        """Whether it is a call of this worker, for a model that it serves."""
        names = [member.name for member in call.members]
        if self.me not in names or len(set(names)) != len(names):
            logger.warning("called to a group of others: %.200s", ", ".join(names))
            return False
        try:
            self._parallelism_of(call.model)
        except KeyError:
            logger.warning("called for %s, which is not served here", call.model)
            return False
        return True

    def _hear(self, call: Call) -> None:
        """Begin a formation, unless this call was heard before; it replaces older plans."""
        with self._changed:
            if call.epoch in self._heard or self._stopping.is_set():
                return
            self._heard[call.epoch] = None
            if len(self._heard) > _REMEMBERED_EPOCHS:
                self._heard.popitem(last=False)
            for older in list(self._formations.values()):
                # One that is formed may stand by now, and its leader be about to take it.
                if older.call.job_id == call.job_id and older.group is None:
                    self._give_up(older)
            abandoned = threading.Event()
            formation = Formation(
                call=call,
                rendezvous=Rendezvous(
                    self._redis,
                    call.epoch,
                    timeout_s=self._patience.form_s,
                    abandoned=abandoned,
                ),
                abandoned=abandoned,
            )
            self._formations[call.epoch] = formation
        name = f"group-{call.epoch}"
        threading.Thread(target=self._see_to, args=(formation,), name=name, daemon=True).start()

    def _see_to(self, formation: Formation) -> None:
        """The whole life of a formation, in a thread of its own."""
        ids = {"job_id": formation.call.job_id, "plan_epoch": formation.epoch}
        begun_s = time.monotonic()
        try:
            formation.group = self._meet(formation)
            formed_s = time.monotonic() - begun_s
            place = self._await_place(formation)
            formation.rendezvous.say_ready(self.me)
            if place.claim is not None:
                self._agree(formation, place.claim)
        except Exception as exc:
            # Whatever it is costs this plan only: nobody must wait for a thread that has ended.
            level = logging.INFO if isinstance(exc, _PASSING) else logging.ERROR
            unknown = exc if level == logging.ERROR else None
            extra = {"action": "not_formed", **ids}
            logger.log(level, "no group: %s", exc, extra=extra, exc_info=unknown)
            self._report(formation)
            with self._changed:
                self._give_up(formation)
        else:
            logger.info("group formed in %.3f s", formed_s, extra={"action": "formed", **ids})

    def _meet(self, formation: Formation) -> SPGroup:
        """The group of the plan's members: the one that all still have, or a fresh one."""
        call = formation.call
        names = tuple(member.name for member in call.members)
        parallelism = self._parallelism_of(call.model)
        key = (call.members, parallelism)
        cached = self.cache.get(key)
        rank = names.index(self.me)
        if formation.rendezvous.agree_on_cached(rank, len(names), cached.name if cached else ""):
            assert cached is not None, "all members agree on a group that this one has"
            return cached.group
        if cached is not None:
            self.cache.forget(cached.group)
        group_name = f"ddit-group-{call.epoch}"
        group = form_group(
            formation.rendezvous.store,
            name=group_name,
            members=names,
            me=self.me,
            parallelism=parallelism,
            device=self._device,
            timeout_s=self._patience.group_s,
            form_timeout_s=self._patience.form_s,
        )
        store = formation.rendezvous.store
        self.cache.keep(key, Cached(name=group_name, group=group, store=store))
        return group

    def _await_place(self, formation: Formation) -> Place:
        """Wait until this worker is where the plan wants it.

        Raises:
            Abandoned: The plan is over.
        """

        def in_place() -> Place | None:
            place = self._place
            if place is None or not formation.is_of(place.job_id, place.attempt):
                return None
            return place if place.awaits in (None, formation.epoch) else None

        while True:
            with self._changed:
                place = self._changed.wait_for(in_place, _LOOK_S)
            if formation.abandoned.is_set():
                raise Abandoned("the plan was replaced")
            if place is not None:
                return place
            if not self._plans.is_open(formation.epoch):
                raise Abandoned("the plan is over")

    def _agree(self, formation: Formation, claim: Claim) -> None:
        """The leader's part: once all are ready, have the plan stand.

        Raises:
            Abandoned: Somebody is late, or the scheduler wants something else by now.
        """
        names = [member.name for member in formation.call.members]
        formation.rendezvous.await_ready(names, timeout_s=self._patience.form_s)
        if not self._plans.formed(claim, formation.epoch):
            raise Abandoned("the plan is no longer wanted")
        with self._changed:
            if formation.abandoned.is_set():
                raise Abandoned("the group broke meanwhile")
            formation.agreed.set()
            self._changed.notify_all()

    def _report(self, formation: Formation) -> None:
        """If this worker leads, say that the plan was not formed, so that another is made."""
        if formation.call.members[0].name != self.me or self._stopping.is_set():
            return
        try:
            place = self._await_place(formation)
            if place.claim is not None:
                self._plans.not_formed(place.claim, formation.epoch)
        except _PASSING as exc:
            logger.debug("plan %s is over: %s", formation.epoch, exc)
