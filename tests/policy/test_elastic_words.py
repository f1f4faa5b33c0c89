from __future__ import annotations

import re
from dataclasses import replace

import pytest
from clusters import OTHER, SORA, crew, decoding, denoised, running, waiting
from fake_costs import COSTS, P144, P360
from hypothesis import given, settings
from random_clusters import Scene, scenes
from worlds import a_world

from ddit_batch.policy.base import Explains
from ddit_batch.policy.elastic import Elastic, is_movable
from ddit_batch.policy.elastic_rank import Ranked
from ddit_batch.policy.elastic_words import WatchedShares
from ddit_batch.snapshot import BatchView, JobView, Recent, WorkerView

ELASTIC = Elastic(costs=COSTS)  # type: ignore[arg-type]
BUSY = Recent(load=0.95, slow_s=50.0)


def said(job: JobView, *others: JobView | WorkerView, **world: object) -> str:
    """What the policy says of a job beside *others*, as one text."""
    return " ".join(ELASTIC.explain(replace(a_world(job, *others), **world), job))


def test_elastic_has_words_of_its_own() -> None:
    """``ddit explain`` asks for them."""
    assert isinstance(ELASTIC, Explains)


def test_job_that_is_alone_learns_what_each_dop_costs() -> None:
    """Nobody is behind it, but others may come, so its GPU-seconds cost something."""
    text = said(waiting(1, P360), *crew(8))

    assert "number 1 of 1" in text
    found = re.search(
        r"0 jobs behind it and others to come, each of its GPU-seconds counts ([\d.]+), "
        r"and each second of its own ([\d.]+)\.",
        text,
    )
    assert found is not None
    price, weight = map(float, found.groups())
    assert price > 0.0
    costs = dict(re.findall(r"(\d) costs ([\d.]+\d)", text))
    cost = COSTS.cost(SORA, P360)
    assert {int(dop): float(said) for dop, said in costs.items()} == {
        dop: pytest.approx((weight + price * dop) * (30 * cost.at(dop) + cost.decode_s), rel=0.01)
        for dop in (1, 2, 4, 8)
    }
    chosen = min(costs, key=lambda dop: float(costs[dop]))
    assert f"; dop {chosen} is chosen" in text
    assert "it is given dop 8." in text


def test_running_job_learns_from_which_load_its_price_is() -> None:
    """And that it keeps more than that, because workers are left."""
    workers = crew(8)
    wide = running(1, P360, *workers, step=3)

    text = said(wide, *workers, waiting(2, P360), recent=Recent(load=0.85))

    assert "At load 0.85, with 1 job behind it" in text
    assert "staying at dop 8 counts as a little better" in text
    assert "When all had been served, workers were left: it is given dop 4." in text


def test_job_that_gets_less_than_it_could_learns_why() -> None:
    """Seven workers are left for it, when the one before it has its own."""
    workers = crew(8)

    text = said(waiting(2, P360), *workers, running(1, P144, workers[0]))

    assert "dop 8 is more than the 7 workers left for it" in text


def test_job_that_waits_learns_its_turn() -> None:
    """Its batch has its share; another has a deadline."""
    first = [waiting(number, P360, batch_id="a") for number in range(1, 9)]
    second = [waiting(number, P360, batch_id="b") for number in range(9, 17)]
    deadline = BatchView(batch_id="b", deadline_s=100.0, work_s=500.0)
    others = [*crew(8), *first[:7], *second]

    text = said(first[7], *others, recent=BUSY, batches=(deadline,))

    assert "number 16 of 16: priority 0; 7 turns of its batch before its own (share 1)" in text
    assert "19 of 20 jobs ended within 50 s" in text
    assert "It gets no workers: all 8 workers that serve open-sora go to the 8 jobs" in text
    assert "(share 1, 6 workers needed for its deadline)" in said(
        second[0], *others[:-8], *second[1:], first[7], recent=BUSY, batches=(deadline,)
    )


def test_preempted_job_learns_that_it_gives_its_workers_back() -> None:
    """A shorter one takes the only worker."""
    worker = crew(1)[0]

    text = said(running(1, P360, worker, step=3), worker, waiting(2, P144))

    assert "number 2 of 2" in text
    assert "It is to give its workers back: the one worker that serves open-sora goes to" in text


def test_overdue_job_learns_that_it_comes_first() -> None:
    """How long it has been here, and for how much work."""
    text = said(waiting(1, P360, arrived_s=-3600.0), *crew(1), waiting(2, P144, priority=9))

    assert "number 1 of 2: it is overdue, here for 1 h 00 min with 19.3 s of work" in text


def test_job_that_moves_learns_so() -> None:
    """Its node has one worker, the next one four."""
    left, right = crew(1), [replace(worker, node="right") for worker in crew(5)[1:]]

    text = said(running(1, P360, *left, step=3), *left, *right)

    assert "It is handed over: it gives its workers back, and goes on on others." in text


def test_job_that_nobody_serves_learns_so() -> None:
    """Draining workers are not given away."""
    job = replace(waiting(1, P360), model=OTHER)

    text = said(job, *crew(2, models=frozenset({"open-sora"})), *crew(1, draining=True))

    assert "No worker that elastic may give away now serves other." in text


@pytest.mark.parametrize("state", ["decoding", "denoised", "cancelled"])
def test_nothing_is_said_of_jobs_that_elastic_does_not_weigh(state: str) -> None:
    """They have what they have."""
    worker = crew(1)[0]
    jobs = {
        "decoding": decoding(1, P144, worker),
        "denoised": denoised(1, P144, worker),
        "cancelled": running(1, P144, worker, cancel_requested=True),
    }

    assert not said(jobs[state], worker)


@settings(max_examples=100)
@given(scenes)
def test_words_are_whole_sentences_and_do_not_depend_on_the_order_of_input(scene: Scene) -> None:
    """Of every job that is weighed, and of no other."""
    world = scene.world
    backwards = replace(world, jobs=world.jobs[::-1], workers=world.workers[::-1])

    for job in world.jobs:
        found = scene.policy.explain(world, job)

        assert bool(found) == is_movable(job)
        assert all(sentence.endswith(".") and "None" not in sentence for sentence in found)
        assert scene.policy.explain(backwards, job) == found


@settings(max_examples=100)
@given(scenes)
def test_costs_that_are_told_are_those_that_the_choice_was_made_by(scene: Scene) -> None:
    """Of a job without workers, which has nothing to keep, the least is chosen."""
    world, policy = scene.world, scene.policy

    for job in world.jobs:
        place, ranked = policy.prepared(world)
        if not is_movable(job) or job.group:
            continue
        free = place.idle_workers()
        shares = WatchedShares(
            free, policy.tuning, world.recent.load, policy.least_cost, watched=job
        )
        shares.give(ranked)
        weighed = shares.weighed
        entry: Ranked = next(entry for entry in ranked if entry.job is job)
        if weighed is not None:
            costs = {
                dop: entry.left_s(dop) * (entry.width_weight + weighed.price * dop)
                for dop in entry.cost.dops
                if dop <= weighed.most
            }
            assert costs[weighed.dop] == min(costs.values())
