"""When batches will be done: by simulation, or by the flow of work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import P144, FakeCosts, a_cost
from worlds import a_job, a_worker, a_world

from ddit_batch.backlog import Kind, Work
from ddit_batch.cost import Basis
from ddit_batch.job import JobState
from ddit_batch.policy import make_policy
from ddit_batch.scheduler.ends import SIMULATED_JOBS, batch_ends
from ddit_batch.snapshot import Snapshot, WorkerView

MODEL = "tiny-wan"
COST = a_cost(1.0, 0.5, optimal=2)
COSTS = FakeCosts(table={}, other=COST)
WORK = Work(costs=COSTS, decodes=False)
WORKERS = (a_worker(0), a_worker(1))


def a_kind(batch: str, *, jobs: int = 1, seq: int = 0, **changes: object) -> Kind:
    """Jobs of ten steps, 10 s at dop 1."""
    kind = Kind(
        batch_id=batch,
        model=MODEL,
        shape=P144,
        steps=10,
        steps_left=10,
        jobs=jobs,
        arrived_s=0.0,
        seq=seq,
    )
    return replace(kind, **changes)


def in_view(*left: Kind, workers: tuple[WorkerView, ...] = WORKERS) -> Snapshot:
    """The jobs of those kinds, encoded, in the order of their arrival."""
    jobs = []
    for kind in sorted(left, key=lambda kind: kind.seq):
        for _ in range(kind.jobs):
            job = a_job(
                len(jobs) + 1,
                JobState.ENCODED if kind.steps_left else JobState.DENOISED,
                batch_id=kind.batch_id,
                model=kind.model,
                shape=kind.shape,
                steps=kind.steps,
                step=kind.steps - kind.steps_left,
            )
            jobs.append(job)
    return a_world(*jobs, *workers)


def ends(*left: Kind, spec: str = "static", **changes: object) -> dict[str, float]:
    """What is foreseen for them."""
    snapshot = in_view(*left, workers=changes.pop("workers", WORKERS))
    given = {"work": WORK, "snapshot": snapshot, "shares": {}, **changes}
    return batch_ends(left, policy=make_policy(spec, COSTS), **given)


def test_few_jobs_are_simulated_to_the_second() -> None:
    """Three jobs on two workers take two turns; a fluid would take one and a half."""
    left = (a_kind("first", jobs=3, seq=1), a_kind("second", seq=2, steps_left=5))
    decode_s = COST.decode_s

    found = ends(*left)

    assert found == {
        "first": pytest.approx(20.0 + 2 * decode_s),
        "second": pytest.approx(15.0 + 2 * decode_s),
    }


def test_the_policy_in_force_is_the_one_that_is_simulated() -> None:
    """With two workers a job, one job takes half of the time."""
    assert ends(a_kind("b")) == {"b": pytest.approx(10.0 + COST.decode_s)}
    assert ends(a_kind("b"), spec="static:dop=2") == {"b": pytest.approx(5.0 + COST.decode_s)}


def test_many_jobs_flow() -> None:
    """First come first served, as the policy does; what is not in view counts as well."""
    many = SIMULATED_JOBS
    left = (a_kind("first", jobs=many, seq=1), a_kind("second", jobs=many, seq=2))
    snapshot = in_view(a_kind("first"))

    found = ends(*left, snapshot=snapshot)

    assert found == {"first": many * 5.0 + COST.decode_s, "second": many * 10.0 + COST.decode_s}


def test_many_jobs_flow_by_shares_under_a_policy_that_shares() -> None:
    """All batches at once."""
    many = SIMULATED_JOBS
    left = (a_kind("first", jobs=many, seq=1), a_kind("second", jobs=many, seq=2))

    found = ends(*left, spec="elastic")

    assert found == dict.fromkeys(("first", "second"), many * 10.0 + COST.decode_s)


def test_workers_of_different_models_are_not_pooled() -> None:
    """A model has the workers that serve it."""
    workers = (a_worker(0, models=frozenset({"x"})), a_worker(1, models=frozenset({"y"})))
    left = (a_kind("of-x", jobs=2, model="x"), a_kind("of-y", model="y"))

    found = ends(*left, snapshot=a_world(*workers))

    assert found == {"of-x": 20.0 + COST.decode_s, "of-y": 10.0 + COST.decode_s}


def test_nothing_is_said_where_there_is_nothing_to_go_by() -> None:
    """No worker for a model, or costs that are a guess: no estimate is better than a wrong one."""
    guess = FakeCosts(table={("new", P144): replace(COST, basis=Basis.ASSUMED)}, other=COST)
    left = (a_kind("good"), a_kind("guessed", model="new"), a_kind("nobody", model="none"))
    workers = tuple(replace(worker, models=frozenset({MODEL, "new"})) for worker in WORKERS)

    found = ends(*left, work=replace(WORK, costs=guess), workers=workers)

    assert set(found) == {"good"}
    assert ends(a_kind("b"), workers=()) == {}
    assert ends() == {}


def test_policy_that_cannot_use_the_workers_is_not_simulated() -> None:
    """The estimate is still there, by the flow."""
    split = (replace(WORKERS[0], node="a"), replace(WORKERS[1], node="b"))

    found = ends(a_kind("b", jobs=2), spec="static:dop=2", workers=split)

    assert found == {"b": 10.0 + COST.decode_s}
