from __future__ import annotations

import pytest
from fake_costs import COSTS, P144, P360
from test_explained_waits import explained, said
from worlds import a_held_job, a_job, a_worker, a_world

from ddit_batch.job import JobState, Shape
from ddit_batch.snapshot import JobView, WorkerView

SORA = frozenset({"open-sora"})


def crew(count: int, node: str = "host", first: int = 0) -> list[WorkerView]:
    """Workers of one node for the paper's shapes."""
    return [a_worker(first + n, models=SORA, node=node) for n in range(count)]


def running(number: int, *workers: WorkerView, shape: Shape = P360, **more: object) -> JobView:
    """A job of the paper at step 10 of 30, last given workers at step 4."""
    given = {"model": "open-sora", "steps": 30, "step": 10, "granted_step": 4}
    return a_held_job(number, JobState.DENOISING, *workers, shape=shape, **{**given, **more})


def test_running_job_learns_what_it_has_and_what_more_would_bring() -> None:
    """360p at dop 2 (0.3323 s a step), B 4 (0.1761 s), fastest 8 (0.1163 s)."""
    workers = crew(2)
    job = running(1, *workers)
    found = explained(a_world(*workers, job), job, "static:dop=2")

    text = " ".join(found.sentences)
    assert "dit-0@host, dit-1@host, of which dit-0@host leads, denoise it (dop 2)" in text
    assert "step 10 of 30 is done; a step takes 0.332 s" in text
    assert "20 steps take about 6.65 s more" in text
    assert "the optimal one (B) is 4 with 0.176 s a step, the fastest 8 with 0.116 s" in text
    assert "Its starvation time is 0.937 s: 6 steps since it was last given workers" in text
    # 20 x (0.3323 - 0.1761) and 20 x (4 x 0.1761 - 2 x 0.3323)
    assert "Dop 4 for the rest of it would save 3.12 s and cost 0.796 GPU-seconds more" in text
    assert found.facts["starvation_s"] == pytest.approx(6 * (0.3323 - 0.1761))
    assert found.facts["doubling"] == pytest.approx(
        {"dop": 4, "saves_s": 3.124, "gpu_seconds": 0.796}
    )


def test_small_node_is_the_reason() -> None:
    """Groups stay inside a node, however many workers idle on others."""
    here, there = crew(2), crew(4, node="other", first=2)
    job = running(1, *here)

    text = said(a_world(*here, *there, job), job, "ddit")

    assert "groups stay inside a node, and host has 2 workers that serve open-sora" in text
    assert "the next legal dop is 4" in text


def test_busy_node_is_the_reason() -> None:
    """Who has the others."""
    workers = crew(4)
    job, other = running(1, *workers[:2]), running(2, *workers[2:])

    text = said(a_world(*workers, job, other), job, "ddit")

    assert "dop 4 takes 2 more workers of host, where none is idle." in text
    assert "b0-000002 has dit-2@host, dit-3@host: step 10 of 30" in text
    assert "it is number 1 of 2" in text


def test_workers_that_went_to_others_are_the_reason() -> None:
    """They were idle, and the same decision gave them to a job that waited."""
    workers = crew(4)
    job = running(1, *workers[:2])
    waiting = a_job(2, JobState.ENCODED, model="open-sora", shape=P144)
    other = a_job(3, JobState.ENCODED, model="open-sora", shape=P144)

    text = said(a_world(*workers, job, waiting, other), job, "ddit:order=waiting-first")

    assert "where none stays idle, and 2 idle workers went to other jobs" in text


def test_policy_is_the_reason() -> None:
    """Workers idle, the dop is legal and faster: static gives nobody more."""
    workers = crew(4)
    job = running(1, *workers[:2])

    text = said(a_world(*workers, job), job, "static:dop=2")

    assert "2 workers of host were idle, enough for dop 4; the policy gave it no more." in text
    assert "static gives it 2 workers of one node, and never changes that." in text


def test_speed_is_the_reason() -> None:
    """Beyond its fastest dop a job has nothing to gain, nor beyond the largest legal one."""
    workers = crew(8)
    fast = running(1, workers[0], shape=P144)
    widest = running(1, *workers, shape=P360)

    assert "its steps are fastest at dop 1" in said(a_world(*workers, fast), fast, "ddit")
    assert "dop 8 is the largest that is legal" in said(a_world(*workers, widest), widest, "ddit")
    assert "starvation" not in said(a_world(*workers, widest), widest, "ddit")


def test_coming_change_is_told() -> None:
    """What this decision tells its leader, and what an earlier one has told it."""
    workers = crew(4)
    job = running(1, *workers[:2])
    told = running(1, *workers[:2], pending=tuple(w.name for w in workers))

    assert "go on with dit-0@host, dit-1@host, dit-2@host, dit-3@host from the next step" in said(
        a_world(*workers, job), job, "ddit"
    )
    text = said(a_world(*workers, told), told, "ddit")
    assert "From its next step boundary it is to have dit-0@host, dit-1@host, dit-2@host" in text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (JobState.ENCODING, "encodes it alone"),
        (JobState.DECODING, "decodes it alone; one worker takes about 0.87 s"),
    ],
)
def test_other_phases_take_one_worker(state: JobState, words: str) -> None:
    """And its name."""
    (worker,) = crew(1)
    job = a_held_job(1, state, worker, model="open-sora", shape=P360)

    assert f"{worker.name} {words}" in said(a_world(worker, job), job)


def test_job_whose_leader_is_gone_is_told_so() -> None:
    """It is taken back in the same decision."""
    job = running(1, a_worker(77, models=SORA))
    world = a_world(*crew(1), a_job(2), job)

    assert "this decision took it back from denoising" in said(world, job)


def test_costs_are_those_of_the_record() -> None:
    """Not of a profile of today: the numbers are what the decision believed."""
    workers = crew(1)
    job = running(1, *workers)

    facts = explained(a_world(*workers, job), job).facts

    assert facts["step_s"] == COSTS.cost("open-sora", P360).at(1)
