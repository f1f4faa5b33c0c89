from __future__ import annotations

import pytest
from sqlalchemy import Engine

from ddit_batch.db.census import Census, is_alive
from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.db.submission import submit
from ddit_batch.job import Incarnation, JobId, JobState, Phase, WorkerName, queue_of
from ddit_batch.request import Request

NAME = WorkerName("encode-0@unit")


def a_request(line: int) -> Request:
    return Request(
        custom_id=f"video-{line}",
        line=line,
        model="tiny-wan",
        prompt="a cat",
        negative_prompt="",
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=8,
        guidance_scale=5.0,
        seed=1,
        fps=8,
    )


@pytest.fixture
def encode_worker(engine: Engine) -> Incarnation:
    """A live encode worker."""
    return registered(engine, lease_s=600.0)


def registered(engine: Engine, *, lease_s: float) -> Incarnation:
    identity = WorkerIdentity(
        name=NAME,
        phase=Phase.ENCODE,
        host="unit",
        node="unit",
        device="cpu",
        pid=1,
        models=("tiny-wan",),
        version="0",
    )
    return LeaseStore(engine, lease_s=lease_s).register(identity)


def submitted(engine: Engine, count: int) -> None:
    requests = [a_request(line) for line in range(1, count + 1)]
    submit(engine, requests, content_hash="h", name="p.jsonl", out_url=None)


def fail_one(engine: Engine, worker: Incarnation) -> JobId:
    """Have an attempt at encoding the first waiting job fail for good."""
    store = SchedulerStore(engine, term=begin_term(engine, holder="test"))
    job = next(
        job
        for job in store.snapshot(window=10, may_lose_workers=False).jobs
        if job.state is JobState.QUEUED
    )
    number = store.open_attempt(job, queue_of(Phase.ENCODE)).attempt
    claims = ClaimStore(engine)
    claim = claims.claim(job.job_id, Phase.ENCODE, number, worker)
    claims.fail(claim, code="phase_failed", message="no", retryable=False, max_failures=3)
    return job.job_id


@pytest.fixture
def _served(engine: Engine) -> None:
    """A DiT worker, so that snapshots show the jobs of its model."""
    identity = WorkerIdentity(
        name=WorkerName("dit-0@unit"),
        phase=Phase.DIT,
        host="unit",
        node="unit",
        device="cpu",
        pid=1,
        models=("tiny-wan",),
        version="0",
    )
    LeaseStore(engine, lease_s=600.0).register(identity)


def test_every_state_and_phase_is_counted(engine: Engine) -> None:
    """Also those without a job; ages are of those that wait."""
    submitted(engine, 3)

    counts = Census(engine).take()

    assert counts.jobs == {state: 3 if state is JobState.QUEUED else 0 for state in JobState}
    assert counts.oldest_waiting_s[Phase.ENCODE] > 0
    assert counts.oldest_waiting_s[Phase.DIT] == counts.oldest_waiting_s[Phase.VAE] == 0


@pytest.mark.usefixtures("_served")
def test_events_are_counted_once_and_one_time_late(
    engine: Engine, encode_worker: Incarnation
) -> None:
    """Late, because rows with lower ids may still be on their way when one is seen."""
    submitted(engine, 2)
    census = Census(engine)
    before = census.take()

    fail_one(engine, encode_worker)
    seen = census.take()
    counted = census.take()
    after = census.take()

    assert before.finished == seen.finished == {}
    assert counted.finished == {JobState.FAILED: 1}
    assert counted.failed_attempts == {(Phase.ENCODE, "phase_failed"): 1}
    assert after.finished == after.failed_attempts == {}
    assert after.jobs[JobState.FAILED] == 1


@pytest.mark.usefixtures("_served")
def test_what_was_before_the_first_time_is_not_counted(
    engine: Engine, encode_worker: Incarnation
) -> None:
    """A leader before has counted it."""
    submitted(engine, 1)
    fail_one(engine, encode_worker)
    census = Census(engine)

    counts = [census.take() for _ in range(3)]

    assert [count.finished for count in counts] == [{}, {}, {}]


def test_worker_with_a_lease_is_alive(engine: Engine, encode_worker: Incarnation) -> None:
    """Until it has stopped; one that never was is not."""
    assert is_alive(engine, NAME)
    assert not is_alive(engine, WorkerName("encode-1@unit"))

    LeaseStore(engine, lease_s=600.0).stopped(encode_worker)

    assert not is_alive(engine, NAME)


def test_worker_whose_lease_ran_out_is_not_alive(engine: Engine) -> None:
    """Whether or not a scheduler has noticed."""
    registered(engine, lease_s=-1.0)

    assert not is_alive(engine, NAME)
