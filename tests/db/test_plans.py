"""The two sides of a plan: the scheduler makes it or takes it back, its leader forms it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Barrier

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db import planning
from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.plans import PlanOutcome, PlanStore
from ddit_batch.db.scheduler_store import SchedulerStore
from ddit_batch.errors import StateConflict
from ddit_batch.job import JobId, Phase, WorkerName, queue_of

Names = tuple[WorkerName, ...]


def names(*numbers: int) -> Names:
    return tuple(WorkerName(f"dit-{number}@host") for number in numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Four DiT workers and the two sides that speak of them."""

    engine: Engine
    lives: dict[WorkerName, int]
    claims: ClaimStore
    plans: PlanStore

    @property
    def scheduler(self) -> SchedulerStore:
        """As whoever leads."""
        return rows.leading(self.engine)

    def runs(self, *numbers: int) -> Claim:
        """A job that these denoise together, the first of them its leader."""
        claim = rows.holding(self.engine, Phase.DIT, by=self.lives[names(numbers[0])[0]])
        if numbers[1:]:
            self.takes_effect(claim, self.told(claim, *numbers))
        return claim

    def told(self, claim: Claim, *numbers: int) -> int:
        """The job's plan for these workers; its epoch."""
        view = rows.view(self.engine, claim.job_id)
        return self.scheduler.open_plan(view, names(*numbers)).epoch

    def takes_effect(self, claim: Claim, epoch: int, *, step: int = 0) -> None:
        """The leader has formed the plan's group, and goes on with it from *step*."""
        assert self.plans.formed(claim, epoch)
        self.changes(claim, epoch, step=step)

    def changes(self, claim: Claim, epoch: int, *, step: int, reason: str = "change") -> bool:
        """The job has the plan's workers since *step*. False: it is not the leader's any more."""
        workers = self.plan(epoch)[1]
        return self.claims.change_group(
            claim, epoch=epoch, workers=workers, step=step, reason=reason
        )

    def plan(self, epoch: int) -> tuple[str | None, Names]:
        """Outcome and workers of a plan."""
        with self.engine.connect() as connection:
            query = text("SELECT outcome, workers FROM plans WHERE epoch = :epoch")
            outcome, workers = connection.execute(query, {"epoch": epoch}).one()
        return outcome, tuple(map(WorkerName, workers))

    def outcome(self, epoch: int) -> str | None:
        """What became of a plan; None while it is pending."""
        return self.plan(epoch)[0]

    def groups(self, job: JobId) -> tuple[Names, Names | None]:
        """The group and the pending group of a job, as a snapshot shows them."""
        view = rows.view(self.engine, job)
        return view.group, view.pending


@pytest.fixture
def cluster(engine: Engine) -> Cluster:
    """Workers 0 to 3, all idle."""
    lives = {name: rows.registered(engine, Phase.DIT, name=name) for name in names(*range(4))}
    return Cluster(engine=engine, lives=lives, claims=ClaimStore(engine), plans=PlanStore(engine))


def test_plan_is_pending_then_formed_then_in_effect(cluster: Cluster) -> None:
    """Until its segment begins it is what the job is about to have; then what it has."""
    claim = cluster.runs(0)
    job, group = claim.job_id, names(0, 1, 2)
    assert cluster.groups(job) == (names(0), None)

    epoch = cluster.told(claim, 0, 1, 2)
    assert (cluster.outcome(epoch), cluster.groups(job)) == (None, (names(0), group))
    assert cluster.plans.formed(claim, epoch)
    assert (cluster.outcome(epoch), cluster.groups(job)) == ("formed", (names(0), group))
    assert cluster.changes(claim, epoch, step=3)

    assert cluster.groups(job) == (group, None)
    assert rows.view(cluster.engine, job).dop == 3


def test_plan_for_several_workers_comes_with_the_message(cluster: Cluster) -> None:
    """All of them are taken from the moment it is sent; once claimed, the leader begins alone."""
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    view, group = rows.view(cluster.engine, job), names(1, 2)

    sending = cluster.scheduler.open_attempt(view, queue_of(Phase.DIT, group[0]), group)

    assert sending.plan is not None
    assert sending.plan.workers == group
    assert sending.plan.incarnations == tuple(cluster.lives[name] for name in group)
    assert cluster.groups(job) == (group, None)
    claim = cluster.claims.claim(job, Phase.DIT, sending.attempt, cluster.lives[group[0]])
    assert cluster.groups(job) == (group[:1], group)
    cluster.takes_effect(claim, sending.plan.epoch)
    assert cluster.groups(job) == (group, None)
    assert rows.segments(cluster.engine, job) == [(0, None, "start")]


def test_message_for_one_worker_has_no_plan(cluster: Cluster) -> None:
    """Nobody has to join."""
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    view = rows.view(cluster.engine, job)

    assert cluster.scheduler.open_attempt(view, "dit.dit-0@host", names(0)).plan is None


def test_same_target_said_again_is_the_same_plan(cluster: Cluster) -> None:
    """The scheduler repeats itself in every round."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)

    with rows.unchanged(cluster.engine):
        assert cluster.told(claim, 0, 1) == epoch


def test_another_target_replaces_a_pending_plan(cluster: Cluster) -> None:
    """Epochs rise, and only the newest plan can be formed."""
    claim = cluster.runs(0)
    first = cluster.told(claim, 0, 1)

    second = cluster.told(claim, 0, 2)

    assert second > first
    assert (cluster.outcome(first), cluster.outcome(second)) == ("replaced", None)
    with rows.unchanged(cluster.engine):
        assert not cluster.plans.formed(claim, first)
        cluster.plans.not_formed(claim, first)
    assert cluster.plans.formed(claim, second)


def test_same_names_with_a_new_life_among_them_are_another_plan(cluster: Cluster) -> None:
    """The one that was called is gone: its successor has heard nothing."""
    claim = cluster.runs(0)
    first = cluster.told(claim, 0, 1)
    reborn = rows.registered(cluster.engine, Phase.DIT, name=names(1)[0])

    second = cluster.scheduler.open_plan(rows.view(cluster.engine, claim.job_id), names(0, 1))

    assert second.epoch > first
    assert second.incarnations[1] == reborn
    assert cluster.outcome(first) == "replaced"


def test_withdrawn_plan_leaves_the_job_as_it_is(cluster: Cluster) -> None:
    """Its newcomers are free again; what is told is the group in effect, by its own epoch."""
    claim = cluster.runs(0, 1)
    view = rows.view(cluster.engine, claim.job_id)
    epoch = cluster.told(claim, 0, 1, 2)

    kept = cluster.scheduler.withdraw_plan(view)

    assert kept < epoch
    assert cluster.outcome(kept) == "formed"
    assert cluster.outcome(epoch) == "withdrawn"
    assert cluster.groups(claim.job_id) == (names(0, 1), None)
    assert not cluster.plans.formed(claim, epoch)
    other = cluster.runs(3)
    assert cluster.told(other, 3, 2) > epoch


def test_nothing_to_withdraw_is_no_error(cluster: Cluster) -> None:
    """It may have been not formed a moment ago."""
    claim = cluster.runs(0)

    with rows.unchanged(cluster.engine):
        assert cluster.scheduler.withdraw_plan(rows.view(cluster.engine, claim.job_id)) == 0


def test_formed_plan_cannot_be_taken_back_before_it_takes_effect(cluster: Cluster) -> None:
    """Neither withdrawn nor replaced nor turned into a release: its members switch on their own."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)
    assert cluster.plans.formed(claim, epoch)
    view, store = rows.view(cluster.engine, claim.job_id), cluster.scheduler

    for write in (
        lambda: store.withdraw_plan(view),
        lambda: store.open_plan(view, names(0, 2)),
        lambda: store.open_plan(view, names(0, 1)),
        lambda: store.open_plan(view, ()),
    ):
        with rows.unchanged(cluster.engine), pytest.raises(StateConflict, match="has formed"):
            write()

    cluster.changes(claim, epoch, step=2)
    assert cluster.told(claim, 0) > epoch


def test_scheduler_that_has_not_seen_a_change_of_group_makes_no_plan(cluster: Cluster) -> None:
    """It would take a worker for a member that has left, and not tell it to join."""
    claim = cluster.runs(0, 1)
    stale = rows.view(cluster.engine, claim.job_id)
    assert cluster.claims.change_group(
        claim, epoch=10**9, workers=names(0), step=2, reason="group_broken"
    )

    for write in (
        lambda: cluster.scheduler.open_plan(stale, names(0, 1, 2)),
        lambda: cluster.scheduler.withdraw_plan(stale),
    ):
        with rows.unchanged(cluster.engine), pytest.raises(StateConflict, match="by now"):
            write()


def test_plan_that_was_not_formed_is_not_pending_any_more(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later decision may try again, by another epoch."""
    monkeypatch.setattr(planning, "TRY_AGAIN_S", 0.0)
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)

    cluster.plans.not_formed(claim, epoch)

    assert cluster.outcome(epoch) == "not_formed"
    assert cluster.groups(claim.job_id) == (names(0), None)
    assert not cluster.plans.formed(claim, epoch)
    assert cluster.told(claim, 0, 1) > epoch


def test_workers_that_could_not_form_a_group_are_not_asked_again_at_once(
    cluster: Cluster,
) -> None:
    """Else a group that fails at once would be tried as fast as decisions are made."""
    claim = cluster.runs(0)
    cluster.plans.not_formed(claim, cluster.told(claim, 0, 1))

    with rows.unchanged(cluster.engine), pytest.raises(StateConflict, match="a moment ago"):
        cluster.told(claim, 0, 1)

    cluster.plans.not_formed(claim, cluster.told(claim, 0, 2))
    rows.registered(cluster.engine, Phase.DIT, name=names(1)[0])
    assert cluster.told(claim, 0, 1)


def test_formed_said_again_is_true_again(cluster: Cluster) -> None:
    """The answer to the first may have been lost on its way; it stays formed."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)
    assert cluster.plans.formed(claim, epoch)

    with rows.unchanged(cluster.engine):
        assert cluster.plans.formed(claim, epoch)
        cluster.plans.not_formed(claim, epoch)


def test_leader_that_lost_its_job_forms_nothing(cluster: Cluster) -> None:
    """Nor does it say that nothing was formed, or who denoises the job."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)
    rows.lost(cluster.engine, claim.incarnation)
    cluster.scheduler.rescue(rows.view(cluster.engine, claim.job_id))

    with rows.unchanged(cluster.engine):
        assert not cluster.plans.formed(claim, epoch)
        cluster.plans.not_formed(claim, epoch)
        assert not cluster.changes(claim, epoch, step=1)


def test_leader_forms_no_plan_of_another_job(cluster: Cluster) -> None:
    """An epoch alone does not make it the leader's."""
    claim, other = cluster.runs(0), cluster.runs(3)
    epoch = cluster.told(other, 3, 2)

    with rows.unchanged(cluster.engine):
        assert not cluster.plans.formed(claim, epoch)
        cluster.plans.not_formed(claim, epoch)


ENDS: dict[str, Callable[[Cluster, Claim], None]] = {
    "finish": lambda cluster, claim: rows.finished(cluster.engine, claim),
    "give_back": lambda cluster, claim: cluster.claims.give_back(claim, reason="x"),
    "cancelled": lambda cluster, claim: cluster.claims.cancelled(claim),
    "failed": lambda cluster, claim: cluster.claims.fail(
        claim, code="x", message="y", retryable=False, max_failures=1
    ),
    "failed_once": lambda cluster, claim: cluster.claims.fail(
        claim, code="x", message="y", retryable=True, max_failures=9
    ),
    "handoff_lost": lambda cluster, claim: cluster.claims.handoff_lost(
        claim, message="y", max_failures=9
    ),
    "rescued": lambda cluster, claim: _rescue(cluster, claim, SchedulerStore.rescue),
    "given_up": lambda cluster, claim: _rescue(cluster, claim, SchedulerStore.give_up),
}


def _rescue(cluster: Cluster, claim: Claim, how: Callable[..., None]) -> None:
    rows.lost(cluster.engine, claim.incarnation)
    how(cluster.scheduler, rows.view(cluster.engine, claim.job_id))


@pytest.mark.parametrize("target", [(0, 1), ()], ids=["group", "release"])
@pytest.mark.parametrize("end", ENDS.values(), ids=list(ENDS))
def test_end_of_an_attempt_ends_its_plan(
    cluster: Cluster, end: Callable[[Cluster, Claim], None], target: tuple[int, ...]
) -> None:
    """However it ends, nobody waits for its group, and its newcomers are free."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, *target)

    end(cluster, claim)

    assert cluster.outcome(epoch) == "attempt_ended"
    assert not cluster.plans.is_open(epoch)
    assert cluster.told(cluster.runs(2), 2, 1) > epoch


def test_withdrawn_message_ends_its_plan(cluster: Cluster) -> None:
    """Its group would never have a leader."""
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    view = rows.view(cluster.engine, job)
    plan = cluster.scheduler.open_attempt(view, "dit.dit-0@host", names(0, 1)).plan
    assert plan is not None

    cluster.scheduler.withdraw(rows.view(cluster.engine, job))

    assert cluster.outcome(plan.epoch) == "attempt_ended"
    assert cluster.groups(job) == ((), None)


def test_message_sent_again_keeps_its_plan_while_its_group_lives(cluster: Cluster) -> None:
    """A member with a new life must be called anew, so that makes another plan."""
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    view = rows.view(cluster.engine, job)
    first = cluster.scheduler.open_attempt(view, "dit.dit-0@host", names(0, 1)).plan

    same = cluster.scheduler.resent(rows.view(cluster.engine, job)).plan
    rows.registered(cluster.engine, Phase.DIT, name=names(1)[0])
    other = cluster.scheduler.resent(rows.view(cluster.engine, job)).plan

    assert first is not None
    assert other is not None
    assert same == first
    assert other.epoch > first.epoch
    assert (cluster.outcome(first.epoch), cluster.outcome(other.epoch)) == ("replaced", None)


def test_no_plan_without_live_workers(cluster: Cluster) -> None:
    """Who is gone cannot be called."""
    claim = cluster.runs(0)
    rows.lost(cluster.engine, cluster.lives[names(2)[0]])

    with rows.unchanged(cluster.engine), pytest.raises(StateConflict, match="dit-2@host is gone"):
        cluster.told(claim, 0, 1, 2)


def test_worker_of_another_job_is_not_promised(cluster: Cluster) -> None:
    """Whether it leads there, follows, is about to join, or was sent a job."""
    claim = cluster.runs(0)
    other = cluster.runs(1, 2)
    cluster.told(other, 1, 2, 3)

    for taken in names(1, 2, 3):
        view = rows.view(cluster.engine, claim.job_id)
        with rows.unchanged(cluster.engine), pytest.raises(StateConflict, match=other.job_id):
            cluster.scheduler.open_plan(view, (*names(0), taken))
    cluster.claims.give_back(other, reason="x")
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    waiting = rows.view(cluster.engine, job)
    cluster.scheduler.open_attempt(waiting, "dit.dit-1@host", names(1))
    with pytest.raises(StateConflict, match=job):
        cluster.told(claim, 0, 1)


def test_message_is_not_sent_to_a_worker_of_another_job(cluster: Cluster) -> None:
    """It may have been claimed a moment ago; then the job goes on waiting, unsent."""
    cluster.runs(0, 1)
    job = rows.waiting_for(cluster.engine, Phase.DIT)
    rows.withdrawn(cluster.engine, job)
    view = rows.view(cluster.engine, job)

    for group in (names(1), names(0), names(2, 1)):
        queue = queue_of(Phase.DIT, group[0])
        with rows.unchanged(cluster.engine), pytest.raises(StateConflict):
            cluster.scheduler.open_attempt(view, queue, group)


def test_worker_is_free_once_the_plan_without_it_is_in_effect(cluster: Cluster) -> None:
    """Not when its group was told to shrink, nor when that was formed: then."""
    claim, other = cluster.runs(0, 1), cluster.runs(2)
    epoch = cluster.told(claim, 0)
    view = rows.view(cluster.engine, other.job_id)

    for advance in (lambda: None, lambda: cluster.plans.formed(claim, epoch)):
        advance()
        with pytest.raises(StateConflict, match=claim.job_id):
            cluster.scheduler.open_plan(view, names(2, 1))
    cluster.changes(claim, epoch, step=4)

    assert cluster.scheduler.open_plan(view, names(2, 1)).epoch > epoch


def test_newcomer_waits_while_its_plan_may_take_effect(cluster: Cluster) -> None:
    """Pending or formed, until a segment has used it up or it was ended otherwise."""
    claim, is_open = cluster.runs(0), cluster.plans.is_open
    first = cluster.told(claim, 0, 1)
    assert is_open(first)
    second = cluster.told(claim, 0, 2)
    assert (is_open(first), is_open(second)) == (False, True)
    assert cluster.plans.formed(claim, second)
    assert is_open(second)

    cluster.changes(claim, second, step=1)

    assert not is_open(second)
    assert not is_open(10**9)


def test_broken_group_takes_its_plans_with_it(cluster: Cluster) -> None:
    """A plan that was made for it counts on members that have left, formed or not."""
    for formed in (False, True):
        claim = cluster.runs(0, 1)
        epoch = cluster.told(claim, 0, 1, 2)
        if formed:
            assert cluster.plans.formed(claim, epoch)

        cluster.claims.change_group(
            claim, epoch=epoch - 1, workers=names(0), step=5, reason="group_broken"
        )

        assert cluster.outcome(epoch) == "not_formed"
        assert cluster.groups(claim.job_id) == (names(0), None)
        assert cluster.told(claim, 0, 1) > epoch
        rows.finished(cluster.engine, claim)


def race(cluster: Cluster, claim: Claim, scheduler: Callable[[], object]) -> None:
    """Have a leader form its plan while *scheduler* takes it back: one of them has its way."""
    epoch = cluster.told(claim, 0, 1)
    barrier = Barrier(2)

    def lead() -> bool:
        barrier.wait()
        return cluster.plans.formed(claim, epoch)

    def take_back() -> bool:
        barrier.wait()
        with suppress(StateConflict):
            scheduler()
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        leading, taking = pool.submit(lead), pool.submit(take_back)
        formed, taken_back = leading.result(), taking.result()
    assert formed != taken_back
    assert (cluster.outcome(epoch) == "formed") == formed


def test_leader_and_scheduler_never_both_have_their_way(cluster: Cluster) -> None:
    """A group that forms was not taken back, and a worker that was taken back enters none."""
    for round_number in range(30):
        claim = cluster.runs(0)
        view, store = rows.view(cluster.engine, claim.job_id), cluster.scheduler
        ways = (
            lambda store=store, view=view: store.withdraw_plan(view),
            lambda store=store, view=view: store.open_plan(view, ()),
            lambda store=store, view=view: store.open_plan(view, names(0, 2)),
        )
        race(cluster, claim, ways[round_number % 3])
        rows.finished(cluster.engine, claim)


def test_scheduler_waits_for_a_leader_that_is_about_to_form(cluster: Cluster) -> None:
    """Held up between its statement and its commit, the leader has still decided first."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)
    view, store = rows.view(cluster.engine, claim.job_id), cluster.scheduler

    with ThreadPoolExecutor(1) as pool:
        with cluster.engine.begin() as connection:
            connection.execute(
                text("UPDATE plans SET outcome = 'formed', ended_at = now() WHERE epoch = :e"),
                {"e": epoch},
            )
            taking = pool.submit(store.withdraw_plan, view)
            with pytest.raises(TimeoutError):
                taking.result(timeout=0.2)
        with pytest.raises(StateConflict, match="has formed"):
            taking.result(timeout=10)


def test_leader_waits_for_a_scheduler_that_is_about_to_take_back(cluster: Cluster) -> None:
    """The other way round."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)

    with ThreadPoolExecutor(1) as pool:
        with cluster.engine.begin() as connection:
            connection.execute(
                text("UPDATE plans SET outcome = 'withdrawn', ended_at = now() WHERE epoch = :e"),
                {"e": epoch},
            )
            forming = pool.submit(cluster.plans.formed, claim, epoch)
            with pytest.raises(TimeoutError):
                forming.result(timeout=0.2)
        assert forming.result(timeout=10) is False


def test_every_outcome_is_legal_in_the_database(cluster: Cluster) -> None:
    """And nothing else is."""
    claim = cluster.runs(0)
    epoch = cluster.told(claim, 0, 1)
    query = text("UPDATE plans SET outcome = :word, ended_at = now() WHERE epoch = :epoch")

    for word in PlanOutcome:
        with cluster.engine.begin() as connection:
            connection.execute(query, {"word": word, "epoch": epoch})
    with pytest.raises(Exception, match="plans_outcome"), cluster.engine.begin() as connection:
        connection.execute(query, {"word": "lost", "epoch": epoch})
