from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import rows
from fake_costs import COSTS
from sqlalchemy import Engine, text

from ddit_batch.control import LiveControl
from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.decisions import records
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.decision_record import policy_of, replay
from ddit_batch.explain import explain
from ddit_batch.job import Incarnation, JobId, JobState, Phase
from ddit_batch.policy import POLICIES, Policy, make_policy
from ddit_batch.scheduler.commands import Cancel, Command, LoseWorker, Rescue, Send, Tell
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.scheduler.live import LiveDriver
from ddit_batch.scheduler.recorder import QUIET_S, DecisionRecorder
from ddit_batch.snapshot import Progress, Snapshot


class AllSeen(DecisionRecorder):
    """Records every decision, and remembers them, to be held against what the database gives."""

    def __init__(self, store: SchedulerStore) -> None:
        self.now_s = 0.0
        super().__init__(store.decision_log(), per_s=1.0, clock=lambda: self.now_s)
        self.decided: list[tuple[Snapshot, tuple[Command, ...]]] = []

    def saw(
        self, snapshot: Snapshot, policy: Policy, limits: Limits, commands: tuple[Command, ...]
    ) -> None:
        """As it does, and remembers."""
        self.decided.append((snapshot, commands))
        self.now_s += 2 * QUIET_S
        super().saw(snapshot, policy, limits, commands)


@dataclass
class Crew:
    """Fake workers: each takes what is sent to it, and does a bit of it at each turn."""

    engine: Engine
    control: LiveControl
    workers: dict[str, Incarnation] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    steps: dict[JobId, int] = field(default_factory=dict)

    def join(self, name: str, phase: Phase) -> None:
        """One more worker."""
        self.workers[name] = rows.registered(self.engine, phase, name=name)

    def die(self, name: str) -> None:
        """One falls silent, with what it had."""
        incarnation = self.workers.pop(name)
        with self.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE workers SET lease_expires_at = now() - interval '1 s' "
                    "WHERE incarnation = :it"
                ),
                {"it": incarnation},
            )
        del self.claims[name]

    def turn(self) -> None:
        """Everybody goes on with what it has, then takes what waits for it."""
        for name, claim in list(self.claims.items()):
            if self._goes_on(claim):
                del self.claims[name]
        for name in sorted(set(self.workers) - set(self.claims)):
            self._take(name)

    def _goes_on(self, claim: Claim) -> bool:
        """Whether the claim has ended with this turn."""
        store, letter = ClaimStore(self.engine), self.control.read_letter(claim.job_id)
        if letter and letter.attempt == claim.attempt and letter.instruction != "continue":
            if letter.instruction == "cancel":
                store.cancelled(claim)
            else:
                step = self.steps.get(claim.job_id, 0)
                store.give_back(claim, reason="released", checkpoint=(f"at-{step}", step))
            return True
        step = self.steps.get(claim.job_id, 0) + 4
        if claim.phase is Phase.DIT and step < 8:
            self.steps[claim.job_id] = step
            report = Progress(attempt=claim.attempt, step=step, step_s=0.4)
            self.control.report(claim.job_id, report)
            return False
        rows.finished(self.engine, claim)
        return True

    def _take(self, name: str) -> None:
        phase = Phase(name.partition("-")[0])
        queue = f"dit.{name}" if phase is Phase.DIT else str(phase)
        with self.engine.connect() as connection:
            found = connection.execute(
                text(
                    "SELECT id, attempt FROM jobs WHERE queue = :queue AND holder IS NULL "
                    "AND dispatched_at IS NOT NULL ORDER BY seq LIMIT 1"
                ),
                {"queue": queue},
            ).one_or_none()
        if found:
            job, attempt = JobId(found.id), found.attempt
            store = ClaimStore(self.engine)
            self.claims[name] = store.claim(job, phase, attempt, self.workers[name])


def run_to_the_end(
    engine: Engine, crew: Crew, driver: LiveDriver, jobs: tuple[JobId, ...]
) -> list[str]:
    """A batch from submission to its end: a leader dies, one drains, a job is cancelled."""
    troubles = ["die", "drain", "cancel"]
    states: list[str] = []
    for _ in range(80):
        driver.round()
        crew.turn()
        states = [str(rows.row(engine, job)["state"]) for job in jobs]
        leaders = [name for name, claim in crew.claims.items() if claim.phase is Phase.DIT]
        if troubles and leaders:
            match troubles.pop(0):
                case "die":
                    crew.die(leaders[0])
                    crew.join("dit-2@host", Phase.DIT)
                case "drain":
                    LeaseStore(engine, lease_s=600).drain(crew.workers[leaders[0]])
                    crew.join("dit-3@host", Phase.DIT)
                case _:
                    with engine.begin() as connection:
                        statement = "UPDATE jobs SET cancel_requested_at = now() WHERE id = :id"
                        connection.execute(text(statement), {"id": jobs[-1]})
        if {*states} <= {"succeeded", "cancelled"}:
            break
    return states


@pytest.mark.parametrize("spec", sorted(POLICIES))
def test_decisions_of_a_live_run_are_replayed_identically_from_their_records(
    engine: Engine, control: LiveControl, make_driver: Callable[..., LiveDriver], spec: str
) -> None:
    """Every decision of a batch from its submission to its end, read back from the database."""
    crew = Crew(engine, control)
    for name, phase in (("encode-0@host", Phase.ENCODE), ("vae-0@host", Phase.VAE)):
        crew.join(name, phase)
    for name in ("dit-0@host", "dit-1@host"):
        crew.join(name, Phase.DIT)
    store = SchedulerStore(engine, term=begin_term(engine, holder="test"))
    recorder = AllSeen(store)
    driver = make_driver(store=store, policy=make_policy(spec, COSTS), recorder=recorder)
    driver._may_lose_after = 0.0  # the lease time after a take-over is not the matter here
    jobs = rows.submitted(engine, 7)

    states = run_to_the_end(engine, crew, driver, jobs)

    assert states == [JobState.SUCCEEDED] * 6 + [JobState.CANCELLED]
    found = list(records(engine))
    assert [(record.snapshot, record.commands) for record in found] == recorder.decided
    assert [replay(record) for record in found] == [commands for _, commands in recorder.decided]
    kinds = {type(command) for record in found for command in record.commands}
    assert kinds >= {Send, LoseWorker, Rescue, Cancel, Tell}
    assert all(explain(record, job.job_id) for record in found for job in record.snapshot.jobs), (
        "each can be explained"
    )


def test_replay_depends_on_what_is_recorded(
    engine: Engine, make_driver: Callable[..., LiveDriver]
) -> None:
    """With another policy or other costs than those on record the commands would be others."""
    rows.registered(engine, Phase.ENCODE)
    for number in range(2):
        rows.registered(engine, Phase.DIT, name=f"dit-{number}@host")
    jobs = rows.submitted(engine, 2)
    for job in jobs:
        rows.finished(engine, rows.claimed(engine, job))
    store = SchedulerStore(engine, term=begin_term(engine, holder="test"))
    policy = make_policy("ddit", COSTS)

    make_driver(store=store, policy=policy, recorder=AllSeen(store)).round()

    (record,) = records(engine)
    assert policy_of(record).name == policy.name
    assert replay(record) == record.commands != ()
    other = make_policy("static", COSTS)
    assert decide(record.snapshot, other, record.limits) != record.commands
