"""How a decision about a group reaches its workers: rows, letter, calls, joins; and what if not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import rows
from celery import Celery
from fake_costs import COSTS
from redis import Redis
from scripted import Scripted
from sqlalchemy import Engine, text
from test_celery_messages import messages

from ddit_batch.control import LiveControl
from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.plans import PlanStore
from ddit_batch.dispatch import Dispatcher
from ddit_batch.job import JobId, JobState, Phase, WorkerName
from ddit_batch.messages import Call, Member
from ddit_batch.policy.ddit import Ddit
from ddit_batch.protocol import PROTOCOL
from ddit_batch.scheduler.live import LiveDriver
from ddit_batch.snapshot import Instruction

MakeDriver = Callable[..., LiveDriver]
NAMES = tuple(WorkerName(f"dit-{number}@host") for number in range(4))
A, B, C, D = NAMES


@pytest.fixture
def lives(engine: Engine) -> dict[WorkerName, int]:
    """Four DiT workers, and one of each other phase."""
    for phase in (Phase.ENCODE, Phase.VAE):
        rows.registered(engine, phase)
    return {name: rows.registered(engine, Phase.DIT, name=name) for name in NAMES}


@pytest.fixture
def policy() -> Scripted:
    """Says what a test tells it."""
    return Scripted()


@pytest.fixture
def driver(make_driver: MakeDriver, policy: Scripted) -> LiveDriver:
    """A scheduler that follows the script."""
    return make_driver(policy=policy)


class Workers:
    """What the workers of a test do and hear."""

    def __init__(
        self, engine: Engine, control: LiveControl, redis: Redis, lives: dict[WorkerName, int]
    ) -> None:
        self.engine = engine
        self.control = control
        self.redis = redis
        self.lives = lives
        self.claims = ClaimStore(engine)
        self.plans = PlanStore(engine)

    def encoded(self) -> JobId:
        """A job that waits for DiT workers, unsent."""
        job = rows.waiting_for(self.engine, Phase.DIT)
        rows.withdrawn(self.engine, job)
        return job

    def claim(self, job: JobId) -> Claim:
        """The job, as the leader that it was sent to takes it from its queue."""
        view = rows.view(self.engine, job)
        return self.claims.claim(job, Phase.DIT, view.attempt, self.lives[view.group[0]])

    def runs(self, driver: LiveDriver, policy: Scripted, *group: WorkerName) -> Claim:
        """A job that *group* denoises, told so by the scheduler; nobody has anything to hear."""
        job = self.encoded()
        policy.targets[job] = group
        driver.round()
        claim = self.claim(job)
        if group[1:]:
            self.takes_effect(claim, self.epoch(job))
        driver.round()
        for name in NAMES:
            self.redis.delete(f"dit.{name}")
            self.calls(name)
        return claim

    def epoch(self, job: JobId) -> int:
        """The newest plan of the job."""
        return self.plan_rows(job)[-1][0]

    def plan_rows(self, job: JobId) -> list[tuple[int, list[str], str | None]]:
        """Epoch, workers and outcome of the job's plans."""
        query = "SELECT epoch, workers, outcome FROM plans WHERE job_id = :job ORDER BY epoch"
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), {"job": job})]

    def takes_effect(self, claim: Claim, epoch: int, *, step: int = 0) -> None:
        """The plan's group has formed and goes on from *step*."""
        workers = next(names for found, names, _ in self.plan_rows(claim.job_id) if found == epoch)
        assert self.plans.formed(claim, epoch)
        assert self.claims.change_group(
            claim, epoch=epoch, workers=tuple(workers), step=step, reason="change"
        )

    def calls(self, name: WorkerName) -> list[Call]:
        """All that the worker was called for and has not heard yet."""
        heard = []
        while call := self.control.next_call(self.lives[name], 0.01):
            heard.append(call)
        return heard

    def called(self, name: WorkerName) -> set[int]:
        """The epochs of these calls."""
        return {call.epoch for call in self.calls(name)}

    def waits(self, name: WorkerName) -> list[str]:
        """The ids of the messages in the worker's queue."""
        return [str(message.headers["id"]) for message in messages(self.redis, f"dit.{name}")]

    def lose_letters(self) -> None:
        """The broker forgets all mailboxes."""
        for key in self.redis.keys("ddit:mailbox:*"):
            self.redis.delete(key)

    def letter(self, job: JobId) -> tuple[Instruction, tuple[str, ...], int]:
        """What stands in the job's mailbox."""
        letter = self.control.read_letter(job)
        assert letter is not None
        return letter.instruction, letter.group, letter.epoch


@pytest.fixture
def workers(
    engine: Engine, control: LiveControl, redis: Redis, lives: dict[WorkerName, int]
) -> Workers:
    """The four DiT workers."""
    return Workers(engine, control, redis, lives)


def test_job_is_sent_to_a_group(workers: Workers, driver: LiveDriver, policy: Scripted) -> None:
    """The task to its leader, a join to each other, a call to all; all by one epoch."""
    job = workers.encoded()
    policy.targets[job] = (B, A, C)

    driver.round()

    view = rows.view(workers.engine, job)
    assert (view.state, view.group) == (JobState.ENCODED, (B, A, C))
    epoch = workers.epoch(job)
    assert workers.waits(B) == [f"{job}.dit.a2"]
    assert workers.waits(A) == [f"{job}.join.e{epoch}.{A}"]
    assert workers.waits(C) == [f"{job}.join.e{epoch}.{C}"]
    assert workers.waits(D) == workers.calls(D) == []
    members = tuple(Member(name=name, incarnation=workers.lives[name]) for name in (B, A, C))
    call = Call(job_id=job, attempt=2, epoch=epoch, model="tiny-wan", members=members)
    assert [workers.calls(name) for name in (A, B, C)] == [[call]] * 3
    assert workers.letter(job) == (Instruction.CONTINUE, (B, A, C), epoch)


def test_growing_group_calls_all_and_has_the_new_ones_join(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """Who is in the group already has its task."""
    claim = workers.runs(driver, policy, A, B)
    policy.targets[claim.job_id] = NAMES

    driver.round()

    epoch = workers.epoch(claim.job_id)
    assert [workers.called(name) for name in NAMES] == [{epoch}] * 4
    assert [len(workers.waits(name)) for name in NAMES] == [0, 0, 1, 1]
    assert workers.letter(claim.job_id) == (Instruction.CONTINUE, NAMES, epoch)


def test_shrinking_group_calls_those_who_stay(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """Nobody joins, and who leaves is told by its leader."""
    claim = workers.runs(driver, policy, *NAMES)
    policy.targets[claim.job_id] = (A, B)

    driver.round()

    epoch = workers.epoch(claim.job_id)
    assert [workers.called(name) for name in NAMES] == [{epoch}, {epoch}, set(), set()]
    assert [workers.waits(name) for name in NAMES] == [[]] * 4


def test_what_was_told_is_repeated_but_nobody_joins_twice(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """A broker may forget; a plan stays the same."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    epoch = workers.epoch(claim.job_id)
    for name in (A, B):
        workers.calls(name)
    workers.lose_letters()

    driver.round()

    assert [epoch for epoch, _, _ in workers.plan_rows(claim.job_id)] == [epoch]
    assert [workers.called(name) for name in (A, B)] == [{epoch}] * 2
    assert workers.letter(claim.job_id) == (Instruction.CONTINUE, (A, B), epoch)
    assert workers.waits(B) == [f"{claim.job_id}.join.e{epoch}.{B}"]


def test_what_was_told_is_repeated_while_the_policy_wants_what_it_cannot_have_yet(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """There is no new command, so what the rows say still holds."""
    claim = workers.runs(driver, policy, A)
    other = workers.runs(driver, policy, C)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    told = workers.letter(claim.job_id)
    policy.targets[claim.job_id] = (A, C)
    workers.lose_letters()

    driver.round()

    assert workers.letter(claim.job_id) == told
    assert rows.view(workers.engine, claim.job_id).pending == (A, B)
    assert rows.view(workers.engine, other.job_id).group == (C,)


def test_request_to_give_a_job_back_is_repeated_until_it_is_given_back(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """Its leader finds it whenever it looks."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = ()
    driver.round()
    told = workers.letter(claim.job_id)
    workers.lose_letters()

    driver.round()

    assert workers.letter(claim.job_id) == told
    assert told[:2] == (Instruction.RELEASE, ())


def test_new_term_goes_on_in_the_middle_of_a_resize(
    workers: Workers, make_driver: MakeDriver, driver: LiveDriver, policy: Scripted
) -> None:
    """From the rows: the same plan; its newcomers are told again, they may not have been told."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    epoch = workers.epoch(claim.job_id)

    make_driver(policy=policy).round()

    assert workers.epoch(claim.job_id) == epoch
    assert rows.view(workers.engine, claim.job_id).pending == (A, B)
    assert workers.waits(B) == [f"{claim.job_id}.join.e{epoch}.{B}"] * 2
    workers.takes_effect(claim, epoch, step=3)
    assert not workers.plans.is_open(epoch)


def test_new_term_tells_of_a_plan_that_its_predecessor_could_not_tell(
    workers: Workers, make_driver: MakeDriver, driver: LiveDriver, policy: Scripted
) -> None:
    """It died between the row and the first message."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    view = rows.view(workers.engine, claim.job_id)
    epoch = rows.leading(workers.engine).open_plan(view, (A, B)).epoch

    make_driver(policy=policy).round()

    assert workers.epoch(claim.job_id) == epoch
    assert [workers.called(name) for name in (A, B)] == [{epoch}] * 2
    assert workers.waits(B) == [f"{claim.job_id}.join.e{epoch}.{B}"]


def test_plan_that_was_made_while_the_broker_was_away_is_told_later(
    workers: Workers,
    make_driver: MakeDriver,
    driver: LiveDriver,
    policy: Scripted,
    tmp_path: Path,
) -> None:
    """The row is written first; the members hear of it when somebody can say so."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    away = f"redis+socket://{tmp_path}/nobody.sock"
    late = make_driver(policy=policy, control=LiveControl(away))

    late.round()
    epoch = workers.epoch(claim.job_id)
    assert workers.waits(B) == []
    late._control = workers.control
    late.round()

    assert workers.epoch(claim.job_id) == epoch
    assert [workers.called(name) for name in (A, B)] == [{epoch}] * 2
    assert workers.waits(B) == [f"{claim.job_id}.join.e{epoch}.{B}"]


def test_plan_that_has_formed_is_left_to_take_effect(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """Whatever is decided meanwhile is said after its step boundary."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    epoch = workers.epoch(claim.job_id)
    assert workers.plans.formed(claim, epoch)

    for target in ((A,), (), (A, B, C)):
        policy.targets[claim.job_id] = target
        driver.round()
        assert workers.letter(claim.job_id) == (Instruction.CONTINUE, (A, B), epoch)
        assert workers.epoch(claim.job_id) == epoch
    workers.takes_effect(claim, epoch, step=2)
    driver.round()

    assert workers.letter(claim.job_id)[1:] == ((A, B, C), workers.epoch(claim.job_id))
    assert workers.epoch(claim.job_id) > epoch


def test_job_that_is_to_be_given_back_has_a_plan_without_workers(
    workers: Workers, driver: LiveDriver, policy: Scripted, redis: Redis
) -> None:
    """So that the word holds without the broker; and it ends with the attempt."""
    claim = workers.runs(driver, policy, A, B)
    policy.targets[claim.job_id] = ()

    driver.round()
    redis.flushdb()
    assert rows.view(workers.engine, claim.job_id).pending == ()
    driver.round()

    epoch = workers.epoch(claim.job_id)
    assert workers.letter(claim.job_id) == (Instruction.RELEASE, (), epoch)
    workers.claims.give_back(claim, reason="released", checkpoint=("checkpoint", 3))
    assert workers.plan_rows(claim.job_id)[-1] == (epoch, [], "attempt_ended")
    assert rows.view(workers.engine, claim.job_id).pending is None


def test_word_that_is_taken_back_frees_the_newcomers(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """The leader is told to stay with what it has; the others may be given away after that."""
    claim, other = workers.runs(driver, policy, A), workers.runs(driver, policy, D)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    epoch = workers.epoch(claim.job_id)

    policy.targets |= {claim.job_id: (A,), other.job_id: (D, B)}
    driver.round()
    assert workers.letter(claim.job_id) == (Instruction.CONTINUE, (A,), 0)
    assert workers.plan_rows(claim.job_id)[-1] == (epoch, [A, B], "withdrawn")
    driver.round()

    assert workers.plan_rows(other.job_id)[-1][1:] == ([D, B], None)


def test_worker_goes_over_to_another_group_when_its_own_has_let_it_go(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """Shrink, boundary, then grow: never two plans for one worker."""
    first, second = workers.runs(driver, policy, A, B), workers.runs(driver, policy, C)
    policy.targets |= {first.job_id: (A,), second.job_id: (C, B)}

    driver.round()
    assert rows.view(workers.engine, first.job_id).pending == (A,)
    assert rows.view(workers.engine, second.job_id).pending is None
    workers.takes_effect(first, workers.epoch(first.job_id), step=4)
    driver.round()

    assert rows.view(workers.engine, first.job_id).group == (A,)
    assert rows.view(workers.engine, second.job_id).pending == (C, B)


def test_group_that_has_lost_a_follower_goes_on_without_it(
    workers: Workers, make_driver: MakeDriver, driver: LiveDriver, policy: Scripted
) -> None:
    """Also if the leader has not noticed: its lease alone has run out."""
    claim = workers.runs(driver, policy, A, B)
    rows.lost(workers.engine, workers.lives[B])
    for name in (C, D):
        rows.lost(workers.engine, workers.lives[name])

    make_driver(policy=Ddit(costs=COSTS)).round()

    epoch = workers.epoch(claim.job_id)
    assert workers.plan_rows(claim.job_id)[-1] == (epoch, [A], None)
    assert workers.letter(claim.job_id) == (Instruction.CONTINUE, (A,), epoch)


def test_newcomer_that_is_lost_is_not_waited_for(
    workers: Workers, make_driver: MakeDriver, driver: LiveDriver, policy: Scripted
) -> None:
    """The job keeps what it has, or is given others."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    rows.lost(workers.engine, workers.lives[B])
    for name in (C, D):
        rows.lost(workers.engine, workers.lives[name])

    make_driver(policy=Ddit(costs=COSTS)).round()

    assert workers.plan_rows(claim.job_id)[-1][1:] == ([A, B], "withdrawn")
    assert workers.letter(claim.job_id) == (Instruction.CONTINUE, (A,), 0)


def test_newcomer_with_a_new_life_is_called_anew(
    workers: Workers, driver: LiveDriver, policy: Scripted
) -> None:
    """The name is the same, but it has heard nothing."""
    claim = workers.runs(driver, policy, A)
    policy.targets[claim.job_id] = (A, B)
    driver.round()
    epoch = workers.epoch(claim.job_id)
    workers.lives[B] = rows.registered(workers.engine, Phase.DIT, name=B)

    driver.round()

    new = workers.epoch(claim.job_id)
    assert new > epoch
    assert workers.called(B) == {new}
    assert workers.waits(B)[-1] == f"{claim.job_id}.join.e{new}.{B}"


def test_sent_job_whose_follower_is_lost_is_sent_to_others(
    workers: Workers, make_driver: MakeDriver, driver: LiveDriver, policy: Scripted
) -> None:
    """Its message is void, with its plan; nobody waits for a group that cannot form."""
    job = workers.encoded()
    policy.targets[job] = (A, B)
    driver.round()
    epoch = workers.epoch(job)
    rows.lost(workers.engine, workers.lives[B])
    for name in (C, D):
        rows.lost(workers.engine, workers.lives[name])

    make_driver(policy=Ddit(costs=COSTS)).round()

    assert workers.plan_rows(job) == [(epoch, [A, B], "attempt_ended")]
    view = rows.view(workers.engine, job)
    assert (view.group, view.attempt) == ((A,), 3)
    assert not workers.plans.is_open(epoch)


def test_message_sent_again_calls_its_group_again(
    workers: Workers,
    driver: LiveDriver,
    policy: Scripted,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker has lost all of it: task, joins and calls."""
    monkeypatch.setattr("ddit_batch.scheduler.live.UNCLAIMED_S", 0.0)
    job = workers.encoded()
    policy.targets[job] = (A, B)
    driver.round()
    epoch = workers.epoch(job)
    redis.flushdb()

    for _ in range(3):
        driver.round()

    assert workers.waits(A) == [f"{job}.dit.a2"]
    assert workers.waits(B) == [f"{job}.join.e{epoch}.{B}"]
    assert [workers.called(name) for name in (A, B)] == [{epoch}] * 2


def test_newcomers_message_is_a_task_of_its_job(dispatcher: Dispatcher, redis: Redis) -> None:
    """In Flower it hangs below the DiT task that it helps, in the tree of its job."""
    dispatcher.join(JobId("b0-000004"), 2, epoch=17, worker=B)

    (message,) = messages(redis, f"dit.{B}")
    assert message.headers["task"] == "ddit.join"
    assert message.headers["id"] == f"b0-000004.join.e17.{B}"
    assert message.headers["root_id"] == "b0-000004.encode.a1"
    assert message.headers["parent_id"] == "b0-000004.dit.a2"
    what = {"job_id": "b0-000004", "attempt": 2, "epoch": 17}
    assert message.kwargs == what | {"protocol": PROTOCOL}
    assert (message.args, message.chain) == ([], [])


ONE = (Member(name=WorkerName("dit-0@host"), incarnation=7),)


def test_calls_are_heard_in_order_each_once(control: LiveControl, app: Celery) -> None:
    """By the life that is meant, and no other."""
    assert app
    calls = [
        Call(job_id=JobId("b0-000001"), attempt=1, epoch=epoch, model="m", members=ONE)
        for epoch in (3, 4)
    ]
    for call in calls:
        control.call(7, call)

    assert control.next_call(8, 0.01) is None
    assert [control.next_call(7, 0.01) for _ in range(3)] == [*calls, None]


def test_calls_that_nobody_hears_do_not_pile_up(control: LiveControl, redis: Redis) -> None:
    """The newest are kept, for a while."""
    for epoch in range(100):
        control.call(7, Call(job_id=JobId("b"), attempt=1, epoch=epoch, model="m", members=ONE))

    (key,) = redis.keys("ddit:calls:*")
    kept = [json.loads(call)["epoch"] for call in redis.lrange(key, 0, -1)]
    assert kept == list(range(36, 100))
    assert 0 < redis.ttl(key) <= 60
