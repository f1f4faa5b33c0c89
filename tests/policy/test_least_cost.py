from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.cost import Basis, Cost, Left
from ddit_batch.policy import least_cost
from ddit_batch.policy.least_cost import LeastCost

KEEP, IDLE_STEPS = 1.2, 1.5
DOPS = (1, 2, 3, 4, 8)


def left_of(step_s: list[float], steps: int) -> Left:
    """What is left of a job of its own, which nobody keeps."""
    fastest = min(DOPS, key=lambda dop: step_s[DOPS.index(dop)])
    cost = Cost(
        dops=DOPS,
        step_s=tuple(step_s),
        encode_s=0.0,
        decode_s=1.0,
        optimal_dop=2,
        fastest_dop=fastest,
        basis=Basis.MEASURED,
    )
    return cost.left(steps)


def total(left: Left, dop: int, current: int, weight: float, price: float) -> float:
    """What a dop costs, by the rule as it is told."""
    cost = left.at[dop] * (weight + price * dop)
    if dop == current <= left.fastest_dop:
        return cost / KEEP
    if dop > current > 0:
        present_s = [step_s for known, _, step_s in left.by_dop if known <= current][-1]
        cost += price * IDLE_STEPS * present_s * (dop - current)
    return cost


jobs = st.tuples(
    st.lists(st.floats(0.1, 10.0), min_size=len(DOPS), max_size=len(DOPS)),
    st.integers(0, 60),
    st.integers(0, 8),
    st.integers(1, 8),
)
prices = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))


@given(jobs=st.lists(jobs, max_size=12), weight=st.floats(1e-2, 1e3), price=prices)
def test_no_dop_costs_less_than_the_one_that_is_found(
    jobs: list[tuple[list[float], int, int, int]], weight: float, price: float
) -> None:
    """Asked once or again, of jobs that are gone by the time of the next question."""
    least = LeastCost(keep=KEEP, idle_steps=IDLE_STEPS)
    for step_s, steps, current, most in (*jobs, *jobs):
        left = left_of(step_s, steps)

        found = least.dop(left, current, most, weight, price)

        costs = {dop: total(left, dop, current, weight, price) for dop in DOPS if dop <= most}
        assert costs[found] <= min(costs.values()) * (1.0 + 1e-9)


def test_of_equal_dops_the_narrowest_is_found() -> None:
    """More workers that save nothing are left to others, even if they cost nothing."""
    least = LeastCost(keep=1.0, idle_steps=0.0)
    left = left_of([4.0, 2.0, 2.0, 2.0, 2.0], steps=10)

    assert least.dop(left, 0, 8, weight=1.0, price=0.0) == 2
    assert least.dop(left, 0, 8, weight=1e6, price=1e-6) == 2


def test_what_is_remembered_is_bounded(monkeypatch: object) -> None:
    """And answers stay right when it is forgotten."""
    monkeypatch.setattr(least_cost, "_KEPT", 3)
    least = LeastCost(keep=KEEP, idle_steps=IDLE_STEPS)
    lefts = [left_of([8.0, 4.5, 3.4, 2.9, 1.9], steps) for steps in range(1, 9)]

    for left in (*lefts, *lefts):
        for price in (0.01, 0.3, 10.0):
            costs = {dop: total(left, dop, 0, 1.0, price) for dop in DOPS}
            assert least.dop(left, 0, 8, 1.0, price) == min(costs, key=costs.__getitem__)
        assert len(least._known) <= 3
