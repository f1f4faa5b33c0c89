"""One round of the live scheduler: observe, decide, act.

Observes Postgres and the broker, lets the core decide, and carries its commands out: rows first,
then the message. A crash in between leaves an attempt without a message, which the next look into
the broker's queues finds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from kombu.exceptions import OperationalError as BrokerError
from redis import RedisError

from ddit_batch.backlog import is_known
from ddit_batch.control import LiveControl
from ddit_batch.db.planning import OpenPlan
from ddit_batch.db.scheduler_store import SchedulerStore, Sending, Standing
from ddit_batch.dispatch import Dispatcher
from ddit_batch.errors import LeadershipLost, StateConflict
from ddit_batch.job import (
    PHASE_OF,
    Incarnation,
    JobId,
    JobState,
    Phase,
    WorkerName,
    queue_of,
    task_id,
)
from ddit_batch.messages import Call, Letter, Member
from ddit_batch.metrics import SchedulerMetrics
from ddit_batch.policy.starvation import starvation_s
from ddit_batch.scheduler.commands import (
    Cancel,
    Command,
    GiveUp,
    LoseWorker,
    Rescue,
    Resend,
    Send,
    TakeAway,
    Tell,
    TimeOut,
    Withdraw,
)
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.scheduler.hanging import Silences
from ddit_batch.scheduler.lookout import Lookout
from ddit_batch.scheduler.recorder import DecisionRecorder
from ddit_batch.snapshot import Instruction, JobView, Progress, Snapshot, Whereabouts, WorkerView

logger = logging.getLogger(__name__)

UNCLAIMED_S = 2.0
"""How long a message may be neither waiting in its queue nor claimed before it is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the scheduler looks, and how patient it is."""

    tick_s: float
    """The longest time between two rounds."""
    reconcile_s: float
    """The time between two looks into the broker's queues."""
    lease_s: float
    window: int = 16
    """Waiting jobs of each phase and model that a snapshot holds for each DiT worker; at least the
    look-ahead."""


class LiveDriver:
    """The rounds of one term. Keeps nothing but when it last looked, and what it found then.

    What it looks at less often than once a round is the matter of its *lookout*.
    """

    def __init__(
        self,
        *,
        store: SchedulerStore,
        control: LiveControl,
        dispatcher: Dispatcher,
        lookout: Lookout,
        limits: Limits,
        pace: Pace,
        metrics: SchedulerMetrics,
        recorder: DecisionRecorder | None = None,
    ) -> None:
        self._store = store
        self._control = control
        self._dispatcher = dispatcher
        self._lookout = lookout
        self._limits = limits
        self._pace = pace
        self._metrics = metrics
        self._recorder = recorder
        self._may_lose_after = time.monotonic() + pace.lease_s
        self._observed = time.monotonic()
        self._looked = time.monotonic()
        self._workers: dict[Incarnation, WorkerView] = {}
        """Those that the last look has shown."""
        self._denoising: dict[JobId, JobView] = {}
        """Likewise."""
        self._joined: dict[JobId, int] = {}
        """Of jobs, the plan that its newcomers were told of in this term: they are told once. A
        term that begins tells them again, and who has heard it finds the plan used up."""
        self._silences = Silences()
        self._has_broker = False
        """Whether the last look for progress was answered."""
        self._taken: dict[str, float] = {}
        """Messages that are neither waiting nor claimed, and since when that was seen."""

    def round(self) -> None:
        """Observe, decide, act.

        Raises:
            LeadershipLost: Another scheduler leads; nothing more was written.
        """
        self._lookout.refine()
        reports = self._take_in_progress()
        snapshot = self._observe(reports)
        self._metrics.observed(snapshot, reports)
        commands = decide(snapshot, self._lookout.policy, self._limits)
        for command in (*commands, *_still_to_do(snapshot, commands)):
            self._carry_out(command)
        if self._recorder is not None:
            self._recorder.saw(snapshot, self._lookout.policy, self._limits, commands)

    def _observe(self, reports: Mapping[JobId, Progress]) -> Snapshot:
        """All that the next decision may depend on."""
        snapshot = self._store.snapshot(
            window=max(self._pace.window, self._limits.look_ahead),
            # After a take-over nobody may have been able to renew: wait one lease time.
            may_lose_workers=time.monotonic() > self._may_lose_after,
            backlog=self._lookout.kinds,
        )
        stood_still = self._stood_still()
        if stood_still:
            snapshot = replace(snapshot, may_lose_workers=False)
        snapshot = self._silences.noticed(
            snapshot, reports, now_s=self._observed, is_blind=stood_still or not self._has_broker
        )
        self._workers = {worker.incarnation: worker for worker in snapshot.workers}
        self._denoising = {
            job.job_id: job for job in snapshot.jobs if job.state is JobState.DENOISING
        }
        grouped = {job.job_id for job in snapshot.jobs if job.group}
        self._joined = {job: epoch for job, epoch in self._joined.items() if job in grouped}
        ends_s = self._lookout.look(snapshot)
        if ends_s is not None:
            self._store.record_ends(ends_s)
        snapshot = self._lookout.completed(snapshot)
        return self._miss_messages(snapshot)

    def _stood_still(self) -> bool:
        """Whether the database may have been out of reach of workers since the last observation.

        One that answers late has served renewals late too. Then nobody is lost for a lease time.
        """
        before, self._observed = self._observed, time.monotonic()
        stood_still = self._observed - before > self._pace.lease_s / 2
        if stood_still:
            self._may_lose_after = self._observed + self._pace.lease_s
        return stood_still

    def _take_in_progress(self) -> dict[JobId, Progress]:
        """Step counts go from the broker to Postgres in one statement. Returns the reports."""
        reports: dict[JobId, Progress] = {}
        try:
            reports = self._control.reports()
            stale = self._store.record_progress(reports, self._standing(reports))
            self._control.forget_reports(stale)
            self._has_broker = True
        except RedisError:
            self._has_broker = False
            logger.debug("broker away, no progress", exc_info=True)
        return reports

    def _standing(self, reports: Mapping[JobId, Progress]) -> dict[JobId, Standing]:
        """What the reports mean, of the jobs that the last round has seen at that attempt."""
        found: dict[JobId, Standing] = {}
        for job_id, report in reports.items():
            job = self._denoising.get(job_id)
            if job is None or job.attempt != report.attempt:
                continue
            job = replace(job, step=min(report.step, job.steps))
            cost = self._lookout.costs.cost(job.model, job.shape)
            step_s = cost.at(cost.widest(job.dop)) if is_known(cost) else report.step_s
            found[job_id] = Standing(
                starvation_s=starvation_s(job, cost),
                eta_s=job.steps_left * step_s + cost.decode_s,
            )
        return found

    def _miss_messages(self, snapshot: Snapshot) -> Snapshot:
        """Mark the unclaimed attempts whose message does not wait in its queue any more.

        It may have vanished with the broker's memory, or with a worker that took it and died. A
        worker that lives claims what it takes at once, so what is neither waiting nor claimed for
        ``UNCLAIMED_S`` is missing. If it was not, the duplicate does no harm.
        """
        now = time.monotonic()
        if now - self._looked < self._pace.reconcile_s:
            return snapshot
        unclaimed = {
            _task(job): _queue(job) for job in snapshot.jobs if job.message is Whereabouts.SENT
        }
        try:
            waiting = self._control.waiting_task_ids(set(unclaimed.values()))
        except RedisError:
            return snapshot
        self._looked = now
        self._taken = {
            task: self._taken.get(task, now) for task in unclaimed if task not in waiting
        }
        missing = {task for task, since in self._taken.items() if now - since > UNCLAIMED_S}
        self._taken = {t: since for t, since in self._taken.items() if t not in missing}
        return replace(
            snapshot,
            jobs=tuple(
                replace(job, message=Whereabouts.MISSING)
                if job.message is Whereabouts.SENT and _task(job) in missing
                else job
                for job in snapshot.jobs
            ),
        )

    def _carry_out(self, command: Command) -> None:
        try:
            self._act(command)
        except LeadershipLost:
            raise
        except StateConflict as exc:
            logger.debug("overtaken: %s", exc)  # the next round sees what has happened
        except (BrokerError, RedisError, OSError) as exc:
            # The row is written: the message will be found missing and sent again.
            logger.warning("broker away: %s", exc, extra={"action": "broker_away"})

    def _act(self, command: Command) -> None:  # noqa: C901 -- one case for each command
        match command:
            case LoseWorker(incarnation):
                if self._store.lose_worker(incarnation):
                    self._say_lost(self._workers[incarnation])
            case Rescue(job):
                self._store.rescue(job)
                self._metrics.job_rescued(PHASE_OF[job.state])
                logger.warning("job rescued", extra=_ids("job_rescued", job))
                self._say_lost_attempt(job)
            case GiveUp(job):
                self._store.give_up(job)
                logger.error("job given up", extra=_ids("job_given_up", job))
                self._say_lost_attempt(job)
            case TakeAway(job) | TimeOut(job):
                self._store.take_away(job, for_good=isinstance(command, TimeOut))
                logger.warning("worker hangs", extra=_ids("worker_hangs", job))
                self._say_lost_attempt(job)
            case Cancel(job):
                self._store.cancel(job)
            case Withdraw(job):
                self._store.withdraw(job)
            case Send(job, queue, group):
                self._publish(
                    replace(job, group=group), queue, self._store.open_attempt(job, queue, group)
                )
            case Resend(job):
                self._publish(job, _queue(job), self._store.resent(job))
                self._metrics.message_resent(PHASE_OF[job.state])
                logger.warning("message sent again", extra=_ids("message_resent", job))
            case Tell(job, instruction, group):
                self._tell(job, instruction, group)
            case _:
                assert_never(command)

    def _tell(self, job: JobView, instruction: Instruction, group: tuple[WorkerName, ...]) -> None:
        """Rows first: a plan, or its withdrawal. A cancel needs neither: it ends the attempt."""
        match instruction:
            case Instruction.CANCEL:
                self._write(job, instruction, group, epoch=0)
            case Instruction.CONTINUE if group == job.group:
                epoch = self._store.withdraw_plan(job)
                self._write(job, instruction, group, epoch=epoch)
            case Instruction.CONTINUE | Instruction.RELEASE:
                plan = self._store.open_plan(job, group)
                self._tell_plan(job, instruction, plan, present=job.group)
            case _:
                assert_never(instruction)

    def _tell_plan(
        self,
        job: JobView,
        instruction: Instruction,
        plan: OpenPlan,
        present: tuple[WorkerName, ...],
    ) -> None:
        """Say what the rows say: to the leader, to all members, to those not among *present*."""
        self._write(job, instruction, plan.workers, epoch=plan.epoch)
        call = _call(job, plan)
        for member in call.members:
            self._control.call(member.incarnation, call)
        if self._joined.get(job.job_id) != plan.epoch:
            for name in plan.workers:
                if name not in present:
                    self._dispatcher.join(job.job_id, job.attempt, epoch=plan.epoch, worker=name)
            self._joined[job.job_id] = plan.epoch

    def _write(
        self,
        job: JobView,
        instruction: Instruction,
        group: tuple[WorkerName, ...],
        *,
        epoch: int,
    ) -> None:
        letter = Letter(attempt=job.attempt, instruction=instruction, group=group, epoch=epoch)
        self._control.write_letter(job.job_id, letter)

    def _say_lost_attempt(self, job: JobView) -> None:
        if job.holder in self._workers:
            name = self._workers[job.holder].name
            self._dispatcher.lost(job.job_id, PHASE_OF[job.state], job.attempt, name)

    def _say_lost(self, worker: WorkerView) -> None:
        self._metrics.worker_lost(worker.phase)
        ids = {"worker": worker.name, "phase": worker.phase, "incarnation": worker.incarnation}
        logger.warning("worker lost", extra={"action": "worker_lost", **ids})

    def _publish(self, job: JobView, queue: str, sending: Sending) -> None:
        job = replace(job, attempt=sending.attempt)
        match PHASE_OF[job.state]:
            case Phase.ENCODE:
                self._dispatcher.encode(job.job_id, job.attempt)
            case Phase.DIT:
                if sending.plan is not None:
                    self._joined.pop(job.job_id, None)  # if sent again, the broker has lost all
                    self._tell_plan(job, Instruction.CONTINUE, sending.plan, job.group[:1])
                self._dispatcher.dit_then_vae(
                    job.job_id, job.attempt, queue=queue, vae_attempt=sending.vae_attempt
                )
            case Phase.VAE:
                self._dispatcher.vae(job.job_id, job.attempt)
            case phase:
                assert_never(phase)


def _still_to_do(snapshot: Snapshot, commands: Sequence[Command]) -> list[Tell]:
    """What running jobs were told and have not done yet, of those with no new command.

    The broker may have lost it; to a leader that has heard it, it says nothing new.
    """
    commanded = {c.job.job_id for c in commands if not isinstance(c, LoseWorker)}
    return [
        Tell(job, Instruction.CONTINUE if job.pending else Instruction.RELEASE, job.pending)
        for job in snapshot.jobs
        if job.pending is not None
        and job.state is JobState.DENOISING
        and job.job_id not in commanded
    ]


def _call(job: JobView, plan: OpenPlan) -> Call:
    members = zip(plan.workers, plan.incarnations, strict=True)
    return Call(
        job_id=job.job_id,
        attempt=job.attempt,
        epoch=plan.epoch,
        model=job.model,
        members=tuple(Member(name=name, incarnation=life) for name, life in members),
    )


def _queue(job: JobView) -> str:
    leader = job.group[0] if job.state is JobState.ENCODED else None
    return queue_of(PHASE_OF[job.state], leader)


def _task(job: JobView) -> str:
    return task_id(job.job_id, PHASE_OF[job.state], job.attempt)


def _ids(action: str, job: JobView) -> dict[str, object]:
    return {
        "action": action,
        "job_id": job.job_id,
        "phase": PHASE_OF[job.state],
        "attempt": job.attempt,
        "incarnation": job.holder,
    }
