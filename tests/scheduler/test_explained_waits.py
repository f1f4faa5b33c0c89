from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import COSTS, P360
from hypothesis import given, settings
from hypothesis import strategies as st
from random_worlds import worlds
from worlds import (
    LIMITS,
    a_held_job,
    a_job,
    a_sent_job,
    a_worker,
    a_world,
    shared_workers,
)

from ddit_batch.decision_record import record_of
from ddit_batch.explain import Explanation, explain
from ddit_batch.explain.preempted import why_given_back
from ddit_batch.explain.seen import Seen, ordinal
from ddit_batch.explain.waiting import why_it_waits
from ddit_batch.job import JobId, JobState, Phase
from ddit_batch.policy import POLICIES, make_policy
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot

SPECS = (*sorted(POLICIES), "static:dop=2", "ddit:order=waiting-first")


def explained(
    world: Snapshot, job: JobView, spec: str = "static", limits: Limits = LIMITS
) -> Explanation:
    """What the decision of *spec* on a world says of one of its jobs."""
    policy = make_policy(spec, COSTS)
    record = record_of(world, policy, limits, decide(world, policy, limits))
    found = explain(record, job.job_id)
    assert found is not None
    return found


def said(world: Snapshot, job: JobView, spec: str = "static") -> str:
    """The same as one text."""
    return " ".join(explained(world, job, spec).sentences)


def test_job_that_waits_for_workers_learns_who_has_them() -> None:
    """Its place, how many workers could do it, and when each of them is likely to be done."""
    busy = [a_worker(n) for n in range(2)]
    running = [a_held_job(n, JobState.DENOISING, busy[n - 1], step=2 * n) for n in (1, 2)]
    first, second = (a_job(n, JobState.ENCODED) for n in (3, 4))
    world = a_world(*busy, *running, second, first)

    text = said(world, second)

    assert "2nd of 2 encoded jobs" in text
    assert "Of 2 DiT workers that serve tiny-wan, none is idle." in text
    assert "b0-000002 has dit-1@host: step 4 of 8, about 3.2 s left at dop 1." in text
    assert text.index("b0-000002 has") < text.index("b0-000001 has"), "the one soonest done first"
    facts = explained(world, second).facts
    assert (facts["place"], facts["waiting"], facts["idle_workers"]) == (2, 2, 0)


def test_job_that_this_decision_starts_is_told_so() -> None:
    """Nothing is wrong: it was sent a moment ago."""
    job = a_job(1, JobState.ENCODED)

    assert said(a_world(a_worker(0), job), job).startswith(
        "This decision sent it to the queue dit.dit-0@host."
    )


def test_job_whose_model_nobody_serves_is_told_so() -> None:
    """Workers are online, but not for it; and when there is none at all, that."""
    job = a_job(1, JobState.ENCODED, model="rare")

    assert "No DiT worker takes jobs of rare (2 online; 1 of them take no new work)." in said(
        a_world(a_worker(0), a_worker(1, draining=True), job), job
    )
    assert "No DiT worker is online." in said(a_world(job), job)


def test_job_behind_the_decode_backlog_is_told_the_limit() -> None:
    """How many wait for a VAE worker, and who it will get afterwards."""
    job = a_job(1, JobState.ENCODED)
    world = a_world(a_worker(0), a_worker(9, Phase.VAE), job, waiting_to_decode=5)

    text = said(world, job)

    assert "5 jobs wait to be decoded" in text
    assert f"no DiT starts while {LIMITS.decode_backlog} or more do" in text
    assert "VAE workers online: 1" in text
    assert "the policy gives it dit-0@host" in text


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (a_sent_job(1, JobState.QUEUED), "in the queue encode (attempt 1); of 1 encode worker"),
        (a_sent_job(1, JobState.ENCODED, "dit-0@host"), "out to its leader dit-0@host"),
        (a_sent_job(1, JobState.DENOISED), "in the queue vae (attempt 1); of 1 VAE worker"),
        (a_sent_job(1, JobState.QUEUED, missing=True), "lost on the way; this decision sent it"),
    ],
)
def test_job_whose_message_is_out_is_told_where_it_is(job: JobView, words: str) -> None:
    """And whether somebody idle could take it; a lost message is sent again."""
    world = a_world(*shared_workers(), a_worker(0), job)

    assert words in said(world, job)


def test_job_to_be_encoded_learns_the_look_ahead() -> None:
    """How far ahead is encoded, and its place among those of its model."""
    jobs = [a_job(n) for n in range(1, 6)]
    world = a_world(*shared_workers(), a_worker(0), *jobs)

    text = said(world, jobs[4])

    assert "2 jobs for each of 1 DiT worker, 2 in all; it is the 5th of 5" in text
    assert "No encode worker is online." in said(a_world(a_worker(0), jobs[0]), jobs[0])


def test_job_that_was_denoised_before_goes_on() -> None:
    """At which step, and where it was."""
    worker = a_worker(0)
    busy = a_held_job(1, JobState.DENOISING, worker)
    job = a_job(2, JobState.ENCODED, step=3, last_group=(worker.name,))

    assert "It was denoised before on dit-0@host; it goes on at step 3 of 8." in said(
        a_world(worker, busy, job), job
    )


def test_job_that_waits_for_a_worker_of_another_job_is_told_whose() -> None:
    """The policy has chosen for it, and the worker is not free yet."""
    leader, follower = a_worker(0), a_worker(1)
    wide = a_held_job(1, JobState.DENOISING, leader, follower, pending=(leader.name,))
    job = a_job(2, JobState.ENCODED)
    world = a_world(leader, follower, wide, job)

    policy = make_policy("static", COSTS)
    plan = {wide.job_id: (leader.name,), job.job_id: (follower.name,)}
    record = record_of(world, policy, LIMITS, ())
    seen = Seen(record=record, job=job, policy=policy, plan=plan)

    text = " ".join(why_it_waits(seen))

    assert "The policy gives it dit-1@host." in text
    assert "until b0-000001 lets them go" in text


def test_policy_adds_its_own_words() -> None:
    """Of static its k, and that no node has so many; of ddit whom it serves first."""
    worker = a_worker(0, models=frozenset({"open-sora"}))
    busy = a_held_job(1, JobState.DENOISING, worker, model="open-sora", shape=P360)
    job = a_job(2, JobState.ENCODED, model="open-sora", shape=P360)
    world = a_world(worker, busy, job)

    assert "No node has so many that serve open-sora: 1 at most." in said(
        world, job, "static:dop=4"
    )
    assert "with its optimal dop 4, or with the workers that are idle, after 1 running job" in said(
        world, job, "ddit"
    )
    assert "after 1 running job" not in said(world, job, "ddit:order=waiting-first")


def test_job_that_was_preempted_learns_for_whom() -> None:
    """From the last decision that saw it run."""
    draining = a_worker(0, draining=True)
    job = a_held_job(1, JobState.DENOISING, draining, step=5)
    world = a_world(draining, job)
    policy = make_policy("static", COSTS)
    record = record_of(world, policy, LIMITS, decide(world, policy, LIMITS))

    assert why_given_back(record, job.job_id) == (
        "At step 5 of 8 it was to leave dit-0@host, which takes no new work.",
    )
    going_on = record_of(a_world(a_worker(0), job), policy, LIMITS, ())
    assert why_given_back(going_on, job.job_id) == ()
    assert why_given_back(going_on, JobId("b0-000999")) == ()


def test_job_that_no_decision_saw_has_no_explanation() -> None:
    """The caller says where it is instead."""
    world = a_world(a_worker(0))

    assert explain(record_of(world, make_policy("static", COSTS), LIMITS, ()), JobId("b")) is None


@settings(max_examples=60)
@given(worlds(), st.sampled_from(SPECS))
def test_every_job_of_every_decision_is_explained(world: Snapshot, spec: str) -> None:
    """Whatever state it is in, in whole sentences, and the same in any order of the snapshot."""
    backwards = replace(world, jobs=world.jobs[::-1], workers=world.workers[::-1])

    for job in world.jobs:
        found = explained(world, job, spec)

        assert found.sentences
        assert all(s.endswith(".") and s[0].isprintable() for s in found.sentences)
        assert "None" not in " ".join(found.sentences)
        assert explained(backwards, job, spec) == found


@pytest.mark.parametrize(
    ("number", "word"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (112, "112th")],
)
def test_places_are_written_as_people_do(number: int, word: str) -> None:
    """Also beyond ten."""
    assert ordinal(number) == word
