from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
import rows
from sqlalchemy import Connection, Engine, text

from ddit_batch.db.moves import SCHEDULER_CHANNEL, Belief, move
from ddit_batch.errors import IllegalTransition, StateConflict
from ddit_batch.job import FINAL_STATES, HELD_STATES, Incarnation, JobId, JobState, Phase
from ddit_batch.lifecycle import TRANSITIONS, Trigger

MOVES = sorted(TRANSITIONS)

NEEDS = {
    JobState.ENCODED: {"embeddings_key": "embeddings"},
    JobState.DENOISED: {"latents_key": "latents"},
    JobState.SUCCEEDED: {"artifact_key": "video"},
    JobState.FAILED: {"failure_code": "code"},
}
"""What a caller must bring with it into a state, besides its holder."""


@pytest.fixture(scope="module")
def jobs(shared_engine: Engine) -> dict[JobState, JobId]:
    """A job in every state; those that wait have their message out."""
    return {state: rows.job_in(shared_engine, state) for state in JobState}


@pytest.fixture(scope="module")
def worker(shared_engine: Engine) -> Incarnation:
    """Somebody to hold a job."""
    return rows.registered(shared_engine)


@pytest.fixture
def connection(shared_engine: Engine, jobs: dict[JobState, JobId]) -> Iterator[Connection]:  # noqa: ARG001 -- made before
    """A transaction that never happens."""
    with shared_engine.connect() as connection:
        yield connection
        connection.rollback()


def job_row(connection: Connection, job: JobId) -> dict[str, object]:
    found = connection.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job})
    return dict(found.mappings().one())


def belief_of(connection: Connection, job: JobId) -> Belief:
    found = job_row(connection, job)
    return Belief(
        job_id=job,
        state=JobState(found["state"]),
        attempt=found["attempt"],
        holder=found["holder"],
    )


def changes_for(target: JobState, worker: Incarnation) -> dict[str, object]:
    return {"holder": worker} if target in HELD_STATES else NEEDS.get(target, {})


def open_rows(connection: Connection, table: str, job: JobId) -> list[object]:
    query = f"SELECT to_jsonb(t) FROM {table} t WHERE job_id = :id AND ended_at IS NULL"
    return list(connection.scalars(text(query), {"id": job}))


@pytest.mark.parametrize(("state", "trigger"), MOVES, ids=str)
def test_legal_move_changes_the_row_and_writes_one_event(
    connection: Connection,
    jobs: dict[JobState, JobId],
    worker: Incarnation,
    state: JobState,
    trigger: Trigger,
) -> None:
    """A move is the new state, its time, one event that says all of it, and no other event."""
    job, target = jobs[state], TRANSITIONS[state, trigger]
    belief = belief_of(connection, job)
    before = job_row(connection, job)
    events = rows.contents(connection)["job_events"]

    moved_to = move(
        connection,
        belief,
        trigger,
        by=worker,
        detail={"why": "test"},
        changes=changes_for(target, worker),
    )

    after = job_row(connection, job)
    assert moved_to == after["state"] == target
    assert after["state_since"] > before["state_since"]
    assert after["attempt"] == before["attempt"]
    assert (after["holder"] is not None) == (target in HELD_STATES)
    assert (after["finished_at"] is not None) == (target in FINAL_STATES)
    assert len(rows.contents(connection)["job_events"]) == len(events) + 1
    newest = connection.execute(text("SELECT * FROM job_events ORDER BY id DESC LIMIT 1")).one()
    assert (newest.job_id, newest.trigger, newest.from_state, newest.to_state) == (
        job,
        trigger,
        state,
        target,
    )
    assert (newest.attempt, newest.incarnation) == (before["attempt"], worker)
    assert newest.detail == {"why": "test"}


@pytest.mark.parametrize(("state", "trigger"), MOVES, ids=str)
def test_every_move_but_a_claim_ends_the_attempt_and_the_segment(
    connection: Connection,
    jobs: dict[JobState, JobId],
    worker: Incarnation,
    state: JobState,
    trigger: Trigger,
) -> None:
    """What is over says how; what a claim begins stays open."""
    job = jobs[state]
    live = open_rows(connection, "attempts", job)
    running = open_rows(connection, "segments", job)

    changes = changes_for(TRANSITIONS[state, trigger], worker)
    move(connection, belief_of(connection, job), trigger, changes=changes)

    assert len(live) == (state not in FINAL_STATES)
    assert len(running) == (state is JobState.DENOISING)
    if trigger is Trigger.CLAIM:
        assert open_rows(connection, "attempts", job) == live
        return
    assert open_rows(connection, "attempts", job) == []
    assert open_rows(connection, "segments", job) == []
    outcomes = connection.scalars(
        text("SELECT outcome FROM attempts WHERE job_id = :id ORDER BY dispatched_at DESC"),
        {"id": job},
    )
    if live:
        assert outcomes.first() == trigger


@pytest.mark.parametrize(
    ("state", "trigger"), sorted(set(itertools.product(JobState, Trigger)) - set(MOVES)), ids=str
)
def test_illegal_move_is_refused_and_nothing_has_changed(
    connection: Connection, jobs: dict[JobState, JobId], state: JobState, trigger: Trigger
) -> None:
    """What the lifecycle table does not know never reaches a row."""
    belief = belief_of(connection, jobs[state])
    before = rows.contents(connection)

    with pytest.raises(IllegalTransition):
        move(connection, belief, trigger)

    assert rows.contents(connection) == before


@pytest.mark.parametrize(("believed", "trigger"), MOVES, ids=str)
def test_move_of_a_job_that_is_elsewhere_is_refused_and_nothing_has_changed(
    connection: Connection,
    jobs: dict[JobState, JobId],
    worker: Incarnation,
    believed: JobState,
    trigger: Trigger,
) -> None:
    """Legal from where the writer believes the job to be, but it is in any of the other states."""
    before = rows.contents(connection)
    changes = changes_for(TRANSITIONS[believed, trigger], worker)

    for state in set(JobState) - {believed}:
        true = belief_of(connection, jobs[state])
        wrong = Belief(job_id=true.job_id, state=believed, attempt=true.attempt)
        with pytest.raises(StateConflict, match="somebody else has moved it on"):
            move(connection, wrong, trigger, changes=changes)

    assert rows.contents(connection) == before


@pytest.mark.parametrize("wrong", [{"attempt": 0}, {"attempt": 2}, {"holder": Incarnation(10**6)}])
@pytest.mark.parametrize("state", sorted(HELD_STATES))
def test_move_on_behalf_of_another_attempt_or_holder_is_refused(
    connection: Connection, jobs: dict[JobState, JobId], state: JobState, wrong: dict[str, int]
) -> None:
    """The state alone does not make a writer the job's."""
    true = belief_of(connection, jobs[state])
    before = rows.contents(connection)
    belief = Belief(**{"job_id": true.job_id, "state": state, "attempt": true.attempt, **wrong})

    with pytest.raises(StateConflict):
        move(connection, belief, Trigger.GIVE_BACK)

    assert rows.contents(connection) == before


def test_move_of_a_job_that_never_was_is_refused(connection: Connection) -> None:
    """A message can name anything."""
    belief = Belief(job_id=JobId("nobody-000001"), state=JobState.QUEUED, attempt=1)

    with pytest.raises(StateConflict, match="nobody-000001"):
        move(connection, belief, Trigger.CANCEL)


def test_claim_without_a_message_out_is_refused(engine: Engine) -> None:
    """A message whose attempt was taken back may still arrive; state and attempt do not tell."""
    job = rows.waiting_for(engine, Phase.ENCODE)
    sent = rows.view(engine, job)
    rows.leading(engine).withdraw(sent)
    worker = rows.registered(engine)

    belief = Belief(job_id=job, state=JobState.QUEUED, attempt=sent.attempt)

    with rows.unchanged(engine), engine.begin() as connection, pytest.raises(StateConflict):
        move(connection, belief, Trigger.CLAIM, changes={"holder": worker})


def test_segment_ends_at_the_step_that_the_job_has_reached(engine: Engine) -> None:
    """Steps are counted where they were done, and never backwards."""
    claim = rows.holding(engine, Phase.DIT)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET step = 5 WHERE id = :id"), {"id": claim.job_id})
        move(connection, claim.belief, Trigger.GIVE_BACK)

    assert rows.segments(engine, claim.job_id) == [(0, 5, "start")]


def test_a_move_wakes_the_scheduler(engine: Engine) -> None:
    """Every change of state may be a reason to decide anew."""
    claim = rows.holding(engine, Phase.ENCODE)
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {SCHEDULER_CHANNEL}".encode())

        rows.finished(engine, claim)

        (notification,) = listener.notifies(timeout=5, stop_after=1)
    assert notification.payload == f"{claim.job_id} finish"
