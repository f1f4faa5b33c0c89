"""The simulated driver: an event heap around the decision core.

Rule 1: it drives the very ``decide`` that the live scheduler drives, with the same snapshots.
Rule 2: no clock and no dice: *now* is the time of the event at hand (``events.py``), so the same
input gives the same bytes.
Rule 3: all events of an instant are applied before the one decision that follows them.

The model of a job. It is encoded on arrival, which nobody waits for; it waits; its DiT phase runs
in segments, each a group and a number of steps; then it waits again and is decoded by one worker,
while the rest of the group that it was given for that, if any, waits with it. A running group
changes at its next step boundary after it was told to; a change of group costs what ``Config``
says. Where there are VAE workers, they decode, and no decision has a say in it. A follower that is
lost costs the step at hand, a leader all steps since the last checkpoint.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ddit_batch.cost_model import CostModel
from ddit_batch.errors import ConfigError
from ddit_batch.job import Incarnation, JobId, JobState, WorkerName
from ddit_batch.policy.base import Policy
from ddit_batch.policy.roster import Roster
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
from ddit_batch.scheduler.core import decide
from ddit_batch.simulator.deadlines import Deadlines
from ddit_batch.simulator.events import Events, Kind
from ddit_batch.simulator.recently import Recently
from ddit_batch.simulator.record import Record
from ddit_batch.simulator.result import Result, Segment
from ddit_batch.simulator.vae_queue import VaeQueue
from ddit_batch.simulator.waiting import Waiting
from ddit_batch.simulator.workload import Workload
from ddit_batch.simulator.world import FIRST_GROUP_S, UNBOUND, Cluster, Config, Fault
from ddit_batch.snapshot import BatchView, Instruction, JobView, Snapshot, WorkerView

ROUNDS_AT_ONCE = 4
"""Decisions at one instant: another follows one that frees workers by taking its word back."""


def simulate(
    workload: Workload,
    costs: CostModel,
    policy: Policy,
    cluster: Cluster,
    config: Config | None = None,
    *,
    faults: tuple[Fault, ...] = (),
) -> Result:
    """Run *workload* to its end under *policy*.

    Raises:
        ConfigError: There is no job, the policy gave a dop that is not legal, or it leaves jobs
            waiting although nothing runs any more.
    """
    if not workload.arrivals:
        raise ConfigError("the workload has no jobs: nothing can be simulated")
    engine = Engine(
        policy=policy,
        workers=cluster.workers(workload.models),
        config=config or Config(),
        batches=workload.batches,
        vae_workers=cluster.vae_workers,
    )
    for seq, arrival in enumerate(workload.arrivals):
        cost = costs.cost(arrival.model, arrival.shape)
        record = Record(arrival, seq, cost, decodes_elsewhere=cluster.vae_workers > 0)
        engine.let_arrive(record, arrival.arrived_s + cost.encode_s)
    for fault in faults:
        engine.schedule(fault)
    engine.run()
    return engine.result()


class Engine:
    """One simulation. Made for one run and thrown away with it."""

    def __init__(
        self,
        *,
        policy: Policy,
        workers: tuple[WorkerView, ...],
        config: Config,
        batches: tuple[BatchView, ...],
        vae_workers: int = 0,
    ) -> None:
        self._policy = policy
        self._config = config
        self._deadlines = Deadlines(batches)
        self._crew = workers
        self._widest = max(Counter(worker.node for worker in workers).values(), default=0)
        self._workers = {worker.name: worker for worker in self._crew}
        self._worker_views = Roster(workers)
        self._next_incarnation = max((w.incarnation for w in workers), default=0) + 1
        self._busy: dict[WorkerName, Record] = {}
        self._events = Events()
        self._waiting = Waiting(window=config.window, window_shortest=config.window_shortest)
        self._active: dict[JobId, Record] = {}
        """Jobs that are denoised or beyond, not done, and a matter of decisions."""
        self._recently = Recently(workers=len(workers))
        self._vae = VaeQueue(vae_workers)
        self._segments: list[Segment] = []
        self._decisions = 0
        self._by_id: dict[JobId, Record] = {}

    def let_arrive(self, record: Record, encoded_s: float) -> None:
        """Have a job wait for its workers from *encoded_s* on."""
        self._by_id[record.arrival.job_id] = record
        self._events.push(encoded_s, Kind.ENCODED, record)

    def let_continue(self, record: Record, now_s: float, job: JobView) -> None:
        """Have a job that is denoised or beyond go on from what *job* says of it at *now_s*."""
        self._by_id[record.arrival.job_id] = record
        self._active[record.arrival.job_id] = record
        self._recently.found(record)
        record.state, record.holder, record.last_group = job.state, job.holder, job.last_group
        self._occupy(record, job.group)
        if job.state is JobState.DENOISING:
            self._step(record, now_s, 0.0)
            record.granted_step = job.granted_step
            if job.pending is not None:
                self._tell(record, now_s, job.pending)
        elif job.state is JobState.DECODING:
            self._decode(record, now_s)

    def schedule(self, fault: Fault) -> None:
        """Have a worker lost, and come back."""
        if not 0 <= fault.worker < len(self._crew):
            raise ConfigError(f"worker {fault.worker} cannot fail: there are {len(self._crew)}")
        self._events.push(fault.lost_s, Kind.LOST, fault.worker)
        if fault.back_s is not None:
            self._events.push(fault.back_s, Kind.BACK, fault.worker)

    def run(self) -> None:
        """Apply events instant by instant, and decide after each, until none is left.

        Raises:
            ConfigError: There are jobs left.
        """
        events = self._events
        while events:
            now_s = events.next_s
            happened = False
            while events and events.next_s == now_s:
                kind, subject, version = events.pop()
                if isinstance(subject, int):
                    self._come_or_go(now_s, kind, subject)
                    happened = True
                elif version == subject.version:
                    happened |= self._move_on(now_s, kind, subject)
            if happened:
                self.decide(now_s)
        self._check_done()

    def result(self) -> Result:
        """What is to be said when all is done."""
        return Result(
            policy=self._policy.name,
            gpus=len(self._crew),
            jobs=tuple(record.outcome() for record in self._by_id.values()),
            segments=tuple(self._segments),
            decisions=self._decisions,
        )

    def _check_done(self) -> None:
        left = [r for r in self._by_id.values() if r.state is not JobState.SUCCEEDED]
        if left:
            raise ConfigError(
                f"policy {self._policy.name} leaves {len(left)} of {len(self._by_id)} jobs "
                f"waiting although nothing runs; the first, {left[0].arrival.job_id}, is "
                f"{left[0].state}: give it a cluster with enough GPUs a node"
            )

    # what happens

    def _move_on(self, now_s: float, kind: Kind, record: Record) -> bool:
        """Let an event of a job happen. False: nothing has, what it was for is not wanted now."""
        match kind:
            case Kind.BOUNDARY:
                if record.pending is None or now_s < record.formed_s:
                    return False
                self._regroup(record, now_s, record.pending)
            case Kind.ENCODED:
                self._wait(record, now_s)
                self._recently.arrived(record, now_s)
            case Kind.DENOISED:
                self._end_segment(record, now_s)
                self._let_go(record, JobState.DENOISED)
                if self._vae.workers:
                    del self._active[record.arrival.job_id]
                    self._events.push(self._vae.end_s(now_s, record.vae_s), Kind.DECODED, record)
            case Kind.DECODED:
                if record.group:
                    self._end_segment(record, now_s)
                self._let_go(record, JobState.SUCCEEDED)
                record.finished_s = now_s
                self._recently.ended(record, now_s)
                self._active.pop(record.arrival.job_id, None)
            case Kind.LOST | Kind.BACK:
                raise AssertionError(f"{kind.name} is no event of a job")
        return True

    def _come_or_go(self, now_s: float, kind: Kind, number: int) -> None:
        """A worker is lost: the next decision will say so. Or its next incarnation is there."""
        first = self._crew[number]
        if kind is Kind.BACK:
            incarnation = Incarnation(self._next_incarnation)
            self._next_incarnation += 1
            self._workers[first.name] = replace(first, incarnation=incarnation)
        elif first.name in self._workers:
            lost = self._workers[first.name]
            self._workers[first.name] = replace(lost, lease_expired=True)
            for record in self._active.values():
                self._lose_follower(record, now_s, first.name)
        self._worker_views = Roster(self._workers.values())

    def _lose_follower(self, record: Record, now_s: float, name: WorkerName) -> None:
        """The others go on from the last completed step, as many as make a legal dop.

        The decision that follows at once tells a group that it was to join otherwise.
        """
        if name not in record.group[1:]:
            return
        left = tuple(other for other in record.group if other != name)
        if record.state is JobState.DENOISING:
            self._regroup(record, now_s, left[: record.cost.widest(len(left))])
        else:
            self._end_segment(record, now_s)
            self._occupy(record, left)
            record.begun_s = record.steps_from_s = now_s
            record.forget_view()

    # what is decided

    def decide(self, now_s: float) -> None:
        """Ask the core, and carry out what it says."""
        for _ in range(ROUNDS_AT_ONCE):
            self._decisions += 1
            commands = decide(self._snapshot(now_s), self._policy, UNBOUND)
            freed = False
            for command in commands:
                freed |= self._carry_out(command, now_s)
            if not freed:
                return

    def _snapshot(self, now_s: float) -> Snapshot:
        jobs, active = self._waiting.seen(), self._active.values()
        jobs += [r.last_view if now_s < r.view_until_s else r.view(now_s) for r in active]
        return Snapshot(
            now_s=now_s,
            jobs=tuple(jobs),
            workers=self._worker_views,
            waiting_to_decode=[record.state for record in active].count(JobState.DENOISED),
            may_lose_workers=True,
            batches=self._deadlines.views(active, now_s),
            recent=self._recently.look(now_s),
        )

    def _carry_out(self, command: Command, now_s: float) -> bool:
        """True: workers are free now that were not when it was decided."""
        match command:
            case Send(job, _, group):
                self._start(self._by_id[job.job_id], now_s, group)
            case Tell(job, instruction, group):
                release = instruction is Instruction.RELEASE
                return self._tell(self._by_id[job.job_id], now_s, () if release else group)
            case LoseWorker(incarnation):
                self._workers = {
                    n: w for n, w in self._workers.items() if w.incarnation != incarnation
                }
                self._worker_views = Roster(self._workers.values())
            case Rescue(job):
                self._rescue(self._by_id[job.job_id], now_s)
            case Cancel() | GiveUp() | Resend() | TakeAway() | TimeOut() | Withdraw():
                raise AssertionError(f"nothing in this world calls for {command}")
        return False

    def _start(self, record: Record, now_s: float, group: tuple[WorkerName, ...]) -> None:
        """Workers take a job that has waited for its DiT or its VAE phase."""
        record.attempt += 1
        record.last_group = ()
        self._occupy(record, group)
        record.holder = self._workers[group[0]].incarnation
        if record.state is JobState.DENOISED:
            record.state = JobState.DECODING
            self._decode(record, now_s)
        else:
            self._waiting.remove(record)
            self._deadlines.waits_no_more(record)
            self._active[record.arrival.job_id] = record
            record.state = JobState.DENOISING
            start_s, form_s = self._config.start_s, self._config.form_s
            if len(group) > 1 and form_s > start_s + FIRST_GROUP_S:
                self._occupy(record, group[:1])
            elif len(group) > 1:
                start_s = max(start_s, form_s)
            self._step(record, now_s, start_s)
            self._tell(record, now_s, group)

    def _tell(self, record: Record, now_s: float, group: tuple[WorkerName, ...]) -> bool:
        """Note what a running job shall have; it will see at its next step boundary."""
        pending = None if group == record.group else group
        if pending == record.pending:
            return False
        freed = set(record.pending or ()) - set(record.group) - set(group)
        forms = pending is not None and len(pending) > 1
        record.tell(pending, now_s + (self._config.form_s if forms else 0.0))
        boundary_s = record.boundary_after(record.formed_s)
        if pending is not None and boundary_s < record.last_boundary_s:
            self._events.push(boundary_s, Kind.BOUNDARY, record)
        return bool(freed)

    def _rescue(self, record: Record, now_s: float) -> None:
        """The leader is lost, and with it what is newer than the last checkpoint."""
        self._end_segment(record, now_s)
        record.worker_losses += 1
        if record.state is JobState.DECODING:
            self._let_go(record, JobState.DENOISED)
            return
        every = self._config.checkpoint_every_steps
        record.step = max(record.checkpoint_step, record.step // every * every)
        self._wait_again(record, now_s)

    # what follows

    def _regroup(self, record: Record, now_s: float, group: tuple[WorkerName, ...]) -> None:
        """At a step boundary: go on with *group*, or give all workers back."""
        self._end_segment(record, now_s)
        if group:
            record.pending = None
            record.resizes += 1
            self._occupy(record, group)
            self._step(record, now_s, self._config.resize_s)
        else:
            record.checkpoint_step = record.step
            self._wait_again(record, now_s)

    def _wait_again(self, record: Record, now_s: float) -> None:
        record.resizes += 1
        del self._active[record.arrival.job_id]
        self._let_go(record, JobState.ENCODED)
        self._wait(record, now_s)

    def _wait(self, record: Record, now_s: float) -> None:
        self._waiting.add(record, now_s)
        self._deadlines.waits(record)

    def _step(self, record: Record, now_s: float, overhead_s: float) -> None:
        """Begin a segment of steps."""
        record.begin_steps(now_s, overhead_s)
        self._events.push(record.last_boundary_s, Kind.DENOISED, record)

    def _decode(self, record: Record, now_s: float) -> None:
        """Begin a decode."""
        record.begun_s = record.steps_from_s = now_s
        record.changed()
        self._events.push(now_s + record.cost.decode_s, Kind.DECODED, record)

    def _end_segment(self, record: Record, now_s: float) -> None:
        segment = record.segment(now_s)
        self._segments.append(segment)
        record.count(segment, widest=self._widest)

    def _occupy(self, record: Record, group: tuple[WorkerName, ...]) -> None:
        """Let *group* be the workers of the job, and no others."""
        for name in record.group:
            del self._busy[name]
        for name in group:
            assert name not in self._busy, f"{name} is in two groups"
            self._busy[name] = record
        record.group = group

    def _let_go(self, record: Record, state: JobState) -> None:
        """All workers of the job are free, and it is in *state*."""
        record.last_group = record.group
        self._occupy(record, ())
        record.state = state
        record.pending = None
        record.holder = None
        record.changed()
