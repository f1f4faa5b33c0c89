"""When batches will be done: by simulation, or by the flow of work."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import P144, FakeCosts, a_cost
from worlds import a_worker

from ddit_batch.backlog import Kind, Work
from ddit_batch.cost import Basis
from ddit_batch.policy import make_policy
from ddit_batch.scheduler.forecast import SIMULATED_JOBS, batch_ends

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


def ends(*left: Kind, spec: str = "static", **changes: object) -> dict[str, float]:
    """What is foreseen for them."""
    given = {"work": WORK, "workers": WORKERS, "shares": {}, **changes}
    return batch_ends(left, policy=make_policy(spec, COSTS), **given)


def test_few_jobs_are_simulated_to_the_second() -> None:
    """Three jobs on two workers take two turns; a fluid would take one and a half."""
    left = (a_kind("first", jobs=3, seq=1), a_kind("second", seq=2, steps_left=5))

    assert ends(*left) == {"first": 20.0 + COST.decode_s, "second": 15.0 + COST.decode_s}


def test_the_policy_in_force_is_the_one_that_is_simulated() -> None:
    """With two workers a job, one job takes half of the time."""
    assert ends(a_kind("b")) == {"b": 10.0 + COST.decode_s}
    assert ends(a_kind("b"), spec="static:dop=2") == {"b": 5.0 + COST.decode_s}


def test_denoised_jobs_have_only_to_be_decoded() -> None:
    """They need no DiT worker."""
    assert ends(a_kind("b", steps_left=0)) == {"b": COST.decode_s}


def test_many_jobs_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is simulated, so it takes no time; first come first served, as the policy does."""
    monkeypatch.setattr("ddit_batch.scheduler.forecast.simulate", None)
    many = SIMULATED_JOBS

    found = ends(a_kind("first", jobs=many, seq=1), a_kind("second", jobs=many, seq=2))

    assert found == {"first": many * 5.0 + COST.decode_s, "second": many * 10.0 + COST.decode_s}


def test_workers_of_different_models_are_not_pooled() -> None:
    """A model has the workers that serve it."""
    workers = (a_worker(0, models=frozenset({"x"})), a_worker(1, models=frozenset({"y"})))
    left = (a_kind("of-x", jobs=2, model="x"), a_kind("of-y", model="y"))

    found = ends(*left, workers=workers)

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
