"""DiT workers without torch: they speak the protocol of groups in real Postgres and Valkey.

One thread plays all of them, a little at a time and in any order, so that everything may come
between everything. What a worker does is as in ``workers/``: one task at a time from its own queue;
calls are heard beside it; a leader takes a plan when all members have heard it, those that hold the
state are in its group, and the others wait in their task for that very plan.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass, field

import rows
from redis import Redis
from sqlalchemy import Engine, text

from ddit_batch.control import LiveControl
from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.plans import PlanStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import Incarnation, JobId, Phase, WorkerName
from ddit_batch.messages import Call, Member
from ddit_batch.snapshot import Instruction, Progress

LATE = 0.3
"""How often something that could happen now waits for a later turn."""


@dataclass(slots=True, eq=False)
class Lead:
    """A leader's task."""

    claim: Claim
    step: int
    epoch: int = 0
    group: tuple[WorkerName, ...] = ()
    formed: int | None = None
    """The plan that stands and takes effect at the next boundary."""
    unwritten: list[tuple[int, tuple[WorkerName, ...], int, str]] = field(default_factory=list)
    """Segments that the accounts have not written yet, in order."""


@dataclass(slots=True, eq=False)
class Join:
    """A follower's task: it waits for the plan, then follows."""

    job_id: JobId
    epoch: int
    follows: bool = False


@dataclass(slots=True, eq=False)
class Puppet:
    """One life of one worker."""

    name: WorkerName
    incarnation: Incarnation
    heard: dict[int, Call] = field(default_factory=dict)
    task: Lead | Join | None = None


class Stage:
    """All workers, and the dice."""

    def __init__(
        self, engine: Engine, control: LiveControl, redis: Redis, dice: random.Random
    ) -> None:
        self.engine = engine
        self.control = control
        self.redis = redis
        self.dice = dice
        self.claims = ClaimStore(engine)
        self.plans = PlanStore(engine)
        self.puppets: dict[WorkerName, Puppet] = {}
        self.changes = 0
        """Groups that have taken effect."""

    def enter(self, name: WorkerName, *, node: str) -> None:
        """A worker begins a life."""
        identity = rows.identity(Phase.DIT, name=name, node=node)
        incarnation = LeaseStore(self.engine, lease_s=600).register(identity)
        self.puppets[name] = Puppet(name, incarnation)

    def dies(self, name: WorkerName) -> None:
        """A worker ends with all that it had; its lease runs out at once."""
        puppet = self.puppets.pop(name)
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE workers SET lease_expires_at = now() - interval '1 s' "
                    "WHERE incarnation = :life"
                ),
                {"life": puppet.incarnation},
            )

    def act(self) -> None:
        """Every worker does something, or waits, in any order."""
        order = sorted(self.puppets)
        self.dice.shuffle(order)
        for name in order:
            if self.dice.random() > LATE:
                self._hear(self.puppets[name])
            if self.dice.random() > LATE:
                self._work(self.puppets[name])

    def _hear(self, puppet: Puppet) -> None:
        while self.redis.llen(f"ddit:calls:{puppet.incarnation}"):
            call = self.control.next_call(puppet.incarnation, 0.01)
            assert call is not None
            puppet.heard[call.epoch] = call

    def _work(self, puppet: Puppet) -> None:
        match puppet.task:
            case None:
                self._take(puppet)
            case Join() as join:
                self._wait_or_follow(puppet, join)
            case Lead() as lead:
                self._lead(puppet, lead)

    def _take(self, puppet: Puppet) -> None:
        message = self.redis.rpop(f"dit.{puppet.name}")
        if message is None:
            return
        fields = json.loads(message)
        kwargs = json.loads(base64.b64decode(fields["body"]))[1]
        job = JobId(kwargs["job_id"])
        if fields["headers"]["task"] == "ddit.join":
            if self.plans.is_open(kwargs["epoch"]):
                puppet.task = Join(job, kwargs["epoch"])
            return
        try:
            claim = self.claims.claim(job, Phase.DIT, kwargs["attempt"], puppet.incarnation)
        except StateConflict:
            return
        step = int(claim.checkpoint_key or 0)
        puppet.task = Lead(claim, step, group=(puppet.name,))

    def _wait_or_follow(self, puppet: Puppet, join: Join) -> None:
        """A newcomer goes when its plan is over; a follower when its leader is gone."""
        if join.follows:
            led = any(
                isinstance(other.task, Lead)
                and other.task.claim.job_id == join.job_id
                and puppet.name in other.task.group
                for other in self.puppets.values()
            )
            if not led:
                puppet.task = None
        elif not self.plans.is_open(join.epoch):
            puppet.task = None

    def _lead(self, puppet: Puppet, lead: Lead) -> None:
        if lead.unwritten and self.dice.random() > LATE and not self._account(lead):
            self._release(puppet, lead)
            return
        if any(name not in self.puppets or not self._follows(name, lead) for name in lead.group):
            self._break(lead)
        letter = self.control.read_letter(lead.claim.job_id)
        told = letter is not None and letter.attempt == lead.claim.attempt
        if told and letter.instruction is Instruction.RELEASE:
            self._end(puppet, lead, finished=False)
        elif lead.formed is not None:
            self._change(lead)
        else:
            self._form(lead)
            self._step(puppet, lead)

    def _step(self, puppet: Puppet, lead: Lead) -> None:
        lead.step += 1
        if lead.step >= lead.claim.request.num_inference_steps:
            self._end(puppet, lead, finished=True)
            return
        progress = Progress(attempt=lead.claim.attempt, step=lead.step, step_s=1.0)
        self.control.report(lead.claim.job_id, progress)

    def _follows(self, name: WorkerName, lead: Lead) -> bool:
        """Whether the worker is in its place in the group that the leader has."""
        task = self.puppets[name].task
        if isinstance(task, Join):
            return task.follows and task.job_id == lead.claim.job_id
        return task is lead

    def _form(self, lead: Lead) -> None:
        """Have the newest plan stand, if all its members are ready; or drop it, now and then."""
        leader = self.puppets[lead.group[0]]
        newest = max((c.epoch for c in leader.heard.values() if self._is_new(c, lead)), default=0)
        if not newest:
            return
        call = leader.heard[newest]
        if all(self._is_ready(member, call, lead) for member in call.members):
            if self.plans.formed(lead.claim, newest):
                lead.formed = newest
            else:
                leader.heard.pop(newest)
        elif self.dice.random() < 0.05:
            self.plans.not_formed(lead.claim, newest)
            leader.heard.pop(newest)

    def _is_new(self, call: Call, lead: Lead) -> bool:
        mine = (call.job_id, call.attempt) == (lead.claim.job_id, lead.claim.attempt)
        return mine and call.epoch > lead.epoch

    def _is_ready(self, member: Member, call: Call, lead: Lead) -> bool:
        puppet = self.puppets.get(member.name)
        if puppet is None or puppet.incarnation != member.incarnation:
            return False
        waits = isinstance(puppet.task, Join) and puppet.task.epoch == call.epoch
        return call.epoch in puppet.heard and (member.name in lead.group or waits)

    def _change(self, lead: Lead) -> None:
        """A step boundary at which a plan stands."""
        leader = self.puppets[lead.group[0]]
        assert lead.formed is not None
        call = leader.heard[lead.formed]
        group = tuple(member.name for member in call.members)
        before, lead.epoch, lead.formed = lead.group, lead.formed, None
        for name in set(before) - set(group):
            self.puppets[name].task = None
        lead.group = group
        for name in group[1:]:
            if name not in self.puppets:
                continue  # died since it was ready: the next turn finds the group broken
            task = self.puppets[name].task
            assert isinstance(task, Join), f"{name} is in a group without a task for it"
            assert task.job_id == lead.claim.job_id, f"{name} is in two groups"
            task.follows = True
        self.changes += 1
        reason = "grow" if len(group) > len(before) else "shrink"
        lead.unwritten.append((lead.epoch, group, lead.step, reason))

    def _break(self, lead: Lead) -> None:
        """A member is gone: the leader goes on alone, the others leave."""
        for name in lead.group[1:]:
            if name in self.puppets and self._follows(name, lead):
                self.puppets[name].task = None
        lead.group, lead.formed = lead.group[:1], None
        leader = self.puppets[lead.group[0]]
        for epoch in [c.epoch for c in leader.heard.values() if self._is_new(c, lead)]:
            leader.heard.pop(epoch)
        lead.unwritten.append((lead.epoch, lead.group, lead.step, "group_broken"))

    def _account(self, lead: Lead) -> bool:
        epoch, workers, step, reason = lead.unwritten.pop(0)
        return self.claims.change_group(
            lead.claim, epoch=epoch, workers=workers, step=step, reason=reason
        )

    def _end(self, puppet: Puppet, lead: Lead, *, finished: bool) -> None:
        """Everybody is let go, the accounts are settled, then the job goes on."""
        while lead.unwritten:
            if not self._account(lead):
                break
        self._release(puppet, lead)
        try:
            if finished:
                self.claims.finish_dit(lead.claim, latents_key="latents", vae_queue="vae")
            else:
                checkpoint = (str(lead.step), lead.step)
                self.claims.give_back(lead.claim, reason="released", checkpoint=checkpoint)
        except StateConflict:
            return

    def _release(self, puppet: Puppet, lead: Lead) -> None:
        for name in lead.group[1:]:
            if name in self.puppets and self._follows(name, lead):
                self.puppets[name].task = None
        puppet.task = None
