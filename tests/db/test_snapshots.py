from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.backlog import read_left
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.submission import Wishes, job_id, submit
from ddit_batch.job import (
    FINAL_STATES,
    HELD_STATES,
    WORKING_STATE,
    JobId,
    JobState,
    Phase,
    Shape,
    queue_of,
)
from ddit_batch.snapshot import BatchView, JobView, Whereabouts


def shown(engine: Engine, *, window: int = 1000) -> list[JobId]:
    """The ids in a snapshot, in order of arrival."""
    jobs = rows.seen(engine, window=window).jobs
    return [job.job_id for job in sorted(jobs, key=lambda job: job.seq)]


def cancel_requested(engine: Engine, ids: Iterable[str], *, table: str = "jobs") -> None:
    with engine.begin() as connection:
        statement = f"UPDATE {table} SET cancel_requested_at = now() WHERE id = ANY(:ids)"
        connection.execute(text(statement), {"ids": list(ids)})


def test_snapshot_of_nothing_is_empty(engine: Engine) -> None:
    """A new installation has nothing to decide."""
    snapshot = rows.seen(engine)

    assert (snapshot.jobs, snapshot.workers, snapshot.waiting_to_decode) == ((), (), 0)


def test_waiting_job_is_shown_as_it_was_submitted(engine: Engine) -> None:
    """All that a policy may look at."""
    (job,) = rows.submitted(engine, priority=3)

    view = rows.view(engine, job)

    assert view == JobView(
        job_id=job,
        batch_id=job.partition("-")[0],
        state=JobState.QUEUED,
        priority=3,
        seq=rows.row(engine, job)["seq"],
        model="tiny-wan",
        shape=Shape(64, 96, 9),
        steps=8,
        step=0,
        attempt=0,
        dop=0,
        message=Whereabouts.NONE,
        group=(),
        holder=None,
        worker_losses=0,
        cancel_requested=False,
        arrived_s=view.arrived_s,
    )


@pytest.mark.parametrize("phase", list(Phase))
def test_sent_job_shows_its_message_and_whose_it_is(engine: Engine, phase: Phase) -> None:
    """DiT work is placed from the moment it is sent; the shared queues are nobody's."""
    view = rows.view(engine, rows.waiting_for(engine, phase))

    assert (view.message, view.attempt, view.holder, view.dop) == (Whereabouts.SENT, 1, None, 0)
    assert view.group == ((rows.LEADER,) if phase is Phase.DIT else ())


def test_job_sent_to_a_private_queue_of_any_phase_shows_whose_it_is(engine: Engine) -> None:
    """A queue names its worker."""
    (job,) = rows.submitted(engine)
    rows.leading(engine).open_attempt(rows.view(engine, job), queue_of(Phase.ENCODE, rows.LEADER))

    assert rows.view(engine, job).group == (rows.LEADER,)


@pytest.mark.parametrize("phase", list(Phase))
def test_held_job_shows_its_holder(engine: Engine, phase: Phase) -> None:
    """A claimed message is none any more; only DiT has a group and a degree."""
    worker = rows.registered(engine, phase, name="me@host")
    claim = rows.holding(engine, phase, by=worker)

    view = rows.view(engine, claim.job_id)

    assert (view.state, view.held) == (WORKING_STATE[phase], True)
    assert (view.message, view.holder) == (Whereabouts.NONE, worker)
    assert (view.group, view.dop) == ((("me@host",), 1) if phase is Phase.DIT else ((), 0))


def test_job_of_a_lost_leader_shows_a_holder_that_no_worker_is(engine: Engine) -> None:
    """That is how the core finds what to rescue; its group is what its segment says."""
    claim = rows.holding(engine, Phase.DIT, by=rows.registered(engine, name="gone@host"))
    rows.lost(engine, claim.incarnation)

    snapshot = rows.seen(engine)

    (view,) = (job for job in snapshot.jobs if job.job_id == claim.job_id)
    assert (view.holder, view.group) == (claim.incarnation, ("gone@host",))
    assert claim.incarnation not in {worker.incarnation for worker in snapshot.workers}


def test_jobs_in_final_states_are_not_shown(engine: Engine) -> None:
    """There is nothing to decide about them."""
    live = {rows.job_in(engine, state) for state in set(JobState) - FINAL_STATES}
    for state in FINAL_STATES:
        rows.job_in(engine, state)

    assert set(shown(engine)) == live


def test_window_is_the_front_of_each_waiting_state(engine: Engine) -> None:
    """By priority, then by arrival; as wide as asked for, for each DiT worker."""
    rows.registered(engine, name=rows.LEADER)
    queued = rows.submitted(engine, 5)
    urgent = rows.submitted(engine, 2, priority=1)
    encoded = [rows.waiting_for(engine, Phase.DIT) for _ in range(4)]
    for job in encoded:
        rows.withdrawn(engine, job)

    assert shown(engine, window=3) == [queued[0], *urgent, *encoded[:3]]

    rows.registered(engine, Phase.DIT)
    assert shown(engine, window=3) == [*queued[:4], *urgent, *encoded]


def test_all_jobs_under_way_are_shown_whatever_the_window(engine: Engine) -> None:
    """What is sent or held must be watched."""
    held = {rows.job_in(engine, state) for state in HELD_STATES}
    sent = {rows.waiting_for(engine, phase) for phase in Phase}
    rows.submitted(engine, 3)

    assert set(shown(engine, window=0)) == held | sent


def test_each_model_has_a_window_of_its_own(engine: Engine) -> None:
    """A long batch of one model does not hide the jobs of another from its idle workers."""
    rows.registered(engine, Phase.DIT, models=("small",))
    rows.registered(engine, Phase.DIT, models=("large",))
    many = rows.submitted(engine, 5, model="small")
    few = rows.submitted(engine, 5, model="large")

    assert shown(engine, window=2) == [*many[:2], *few[:2]]


def test_jobs_of_a_model_that_no_worker_serves_are_left_out(engine: Engine) -> None:
    """They can go nowhere, and would only hide others; they come back with a worker."""
    leases = LeaseStore(engine, lease_s=600)
    draining = rows.registered(engine, models=("old",))
    leases.drain(draining)
    rows.registered(engine)
    old, tiny = rows.submitted(engine, model="old"), rows.submitted(engine)
    assert shown(engine) == [*tiny]

    rows.registered(engine, Phase.VAE, models=("old",))

    assert shown(engine) == [*old, *tiny]


def test_waiting_jobs_to_be_cancelled_are_shown_wherever_they_stand(engine: Engine) -> None:
    """Neither the window nor missing workers keep a wish waiting."""
    rows.submitted(engine, 3)
    unwanted = rows.submitted(engine, 2, model="nobody-has-it")

    cancel_requested(engine, unwanted)

    jobs = rows.seen(engine, window=0).jobs
    assert {job.job_id for job in jobs} == set(unwanted)
    assert all(job.cancel_requested for job in jobs)


@pytest.mark.parametrize("state", sorted(set(JobState) - FINAL_STATES))
def test_live_jobs_of_a_cancelled_batch_are_to_be_cancelled(
    engine: Engine, state: JobState
) -> None:
    """Whatever they are at."""
    job = rows.job_in(engine, state)

    cancel_requested(engine, [job.partition("-")[0]], table="batches")

    assert rows.view(engine, job).cancel_requested


def test_cancelled_jobs_are_not_shown_again(engine: Engine) -> None:
    """A wish that was granted is history."""
    (job,) = rows.submitted(engine)
    store = rows.leading(engine)
    cancel_requested(engine, [job])

    store.cancel(rows.view(engine, job))

    assert shown(engine) == []


def test_jobs_that_wait_for_vae_are_counted_beyond_the_window(engine: Engine) -> None:
    """Back-pressure looks at all of them."""
    for _ in range(3):
        claim = rows.holding(engine, Phase.VAE)
        ClaimStore(engine).give_back(claim, reason="drain")
    rows.waiting_for(engine, Phase.VAE)

    assert rows.seen(engine, window=1).waiting_to_decode == 4


def of_steps(engine: Engine, *steps: int, wishes: Wishes | None = None) -> tuple[JobId, ...]:
    """The jobs of a new batch, each of so many steps."""
    requests = [rows.a_request(i, num_inference_steps=n) for i, n in enumerate(steps, start=1)]
    given = {"content_hash": uuid4().hex, "name": "p.jsonl", "out_url": None}
    batch = submit(engine, requests, **given, wishes=wishes or Wishes())
    return tuple(job_id(batch.batch_id, request.line) for request in requests)


def shown_short(engine: Engine, *, window: int) -> list[JobId]:
    """The ids in a snapshot by one who has looked at the backlog, in order of arrival."""
    backlog = read_left(engine).kinds
    store = rows.leading(engine)
    jobs = store.snapshot(window=window, may_lose_workers=True, backlog=backlog).jobs
    return [job.job_id for job in sorted(jobs, key=lambda job: job.seq)]


def test_shortest_of_each_batch_are_shown_beside_the_first(engine: Engine) -> None:
    """A policy that prefers short jobs must see them, however late they stand in the file."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    one = of_steps(engine, *range(60, 40, -1))
    two = of_steps(engine, *range(60, 40, -1))

    found = shown_short(engine, window=16)

    assert found == [*one[:16], *one[-4:], *two[-4:]]


def test_short_jobs_of_many_batches_share_the_room_of_one_window(engine: Engine) -> None:
    """The oldest batches have it: a snapshot stays small however many there are."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    batches = [of_steps(engine, *range(60, 50, -1)) for _ in range(6)]

    found = shown_short(engine, window=16)

    first = {*batches[0], *batches[1]}
    assert set(found) - first == set()
    assert len(found) <= 2 * 16


def test_work_that_was_done_makes_a_waiting_job_short(engine: Engine) -> None:
    """What counts is what is left when it came back, by its checkpoint."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    jobs = of_steps(engine, *[40] * 30, 50)
    last = jobs[-1]
    rows.finished(engine, rows.claimed(engine, last))
    whole = rows.row(engine, last)["work"]
    claim = rows.claimed(engine, last)
    ClaimStore(engine).give_back(claim, reason="released", checkpoint=("checkpoint", 45))

    assert rows.row(engine, last)["work"] == whole * 5 // 50
    assert last in shown_short(engine, window=8)


def test_short_jobs_that_no_worker_can_do_are_left_out(engine: Engine) -> None:
    """They would only take the room of others."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    rows.submitted(engine, 40, model="nobody-has-it")
    jobs = of_steps(engine, 60, 50, 40, 30, 20, 10)

    assert shown_short(engine, window=8) == list(jobs)


def test_waiting_job_shows_the_workers_of_its_last_segment_that_live(engine: Engine) -> None:
    """What they hold of it need not move; one that is gone holds nothing."""
    worker = rows.registered(engine, Phase.DIT, name="dit-7@host")
    claim = rows.holding(engine, Phase.DIT, by=worker)
    assert rows.view(engine, claim.job_id).last_group == ()
    ClaimStore(engine).give_back(claim, reason="released")

    assert rows.view(engine, claim.job_id).last_group == ("dit-7@host",)

    rows.lost(engine, worker)
    assert rows.view(engine, claim.job_id).last_group == ()


def test_batches_are_shown_if_their_users_wished_something(engine: Engine) -> None:
    """Those of the jobs in view; all others are as any batch is."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    deadline = datetime.now(UTC) + timedelta(hours=6)
    (urgent,) = of_steps(engine, 8, wishes=Wishes(deadline=deadline))
    (large,) = of_steps(engine, 8, wishes=Wishes(share=2.0))
    of_steps(engine, 8)

    found = {view.batch_id: view for view in rows.seen(engine).batches}

    assert set(found) == {urgent.partition("-")[0], large.partition("-")[0]}
    of_urgent, of_large = found[urgent.partition("-")[0]], found[large.partition("-")[0]]
    assert of_urgent.deadline_s == pytest.approx(deadline.timestamp(), abs=1e-3)
    assert of_large == BatchView(batch_id=of_large.batch_id, share=2.0)


def test_left_is_every_unfinished_job_in_its_kind(engine: Engine) -> None:
    """Held, sent or waiting, with the steps that are left; final ones are not."""
    for state in JobState:
        rows.job_in(engine, state)
    jobs = rows.submitted(engine, 5)

    kinds = read_left(engine).kinds

    assert sum(kind.jobs for kind in kinds) == len(set(JobState) - FINAL_STATES) + len(jobs)
    by_batch = {kind.batch_id: kind for kind in kinds}
    assert by_batch[jobs[0].partition("-")[0]].jobs == 5
    assert by_batch[jobs[0].partition("-")[0]].waits
    steps_left = sorted(kind.steps_left for kind in kinds)
    assert steps_left == [0, 0, 8, 8, 8, 8, 8]
