"""What is left, by kinds: sums, and the two ways in which work flows through workers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_costs import P144, P240, FakeCosts, a_cost
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.backlog import (
    Kind,
    Work,
    ends_by_shares,
    ends_in_order,
    is_known,
    left_of_batches,
    mean_work_s,
    recent_of,
)
from ddit_batch.cost import Basis, Live
from ddit_batch.recent import LOAD_SPAN, PRIOR_LOAD, PRIOR_WEIGHT, Spans, spans

MODEL = "m"
COST = a_cost(2.0, 1.0, optimal=2)
COSTS = FakeCosts(table={}, other=COST)
DIT = Work(costs=COSTS, decodes=False)
CREW = {MODEL: frozenset({"a", "b"})}


def a_kind(batch: str, *, jobs: int = 1, seq: int = 0, **changes: object) -> Kind:
    """Jobs of ten steps, 20 s at dop 1, none of them done."""
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
    return replace(kind, **changes)  # type: ignore[arg-type]  # a kind's own fields


def test_work_counts_decoding_where_dit_workers_do_it() -> None:
    """Elsewhere it is the work of others."""
    kind = a_kind("b", steps_left=4)

    assert (DIT.whole_s(kind), DIT.left_s(kind)) == (20.0, 8.0)
    both = replace(DIT, decodes=True)
    assert both.left_s(kind) == 8.0 + COST.decode_s


def test_mean_is_over_jobs_not_over_kinds() -> None:
    """A kind weighs as many times as it has jobs."""
    kinds = (a_kind("b", jobs=3), a_kind("b", steps=30))

    assert mean_work_s(kinds, DIT) == (3 * 20.0 + 60.0) / 4
    assert mean_work_s((), DIT) == 0.0


def test_new_jobs_count_whole_and_old_ones_with_what_is_left() -> None:
    """A backlog is a load too; what came and went within the span has been work."""
    new = a_kind("new", arrived_s=95.0, steps_left=1)
    old = a_kind("old", arrived_s=50.0, steps_left=1)
    very_old = a_kind("very old", arrived_s=10.0, steps_left=1)
    ended = a_kind("", steps_left=0, arrived_s=92.0)
    ended_before = a_kind("", steps_left=0, arrived_s=65.0)

    found = recent_of(
        (new, old, very_old),
        (ended, ended_before),
        work=DIT,
        workers=2,
        now_s=100.0,
        span=Spans(load_s=10.0, latency_s=60.0),
        latencies_s=[*range(100, 0, -1)],
    )

    offered = (20.0 + 2.0 + 2.0 + 20.0) / (2 * 10.0)
    usual = (20.0 + 20.0 + 20.0 + 20.0) / (2 * 60.0)
    for load, of in ((found.load, offered), (found.usual_load, usual)):
        assert load == pytest.approx((of + PRIOR_WEIGHT * PRIOR_LOAD) / (1 + PRIOR_WEIGHT))
    assert found.slow_s == 95.0


def test_what_is_left_of_a_batch_is_the_sum_of_its_kinds() -> None:
    """Batches are told apart."""
    left = (a_kind("x", jobs=2), a_kind("x", steps_left=5), a_kind("y"))

    assert left_of_batches(left, DIT) == {"x": 50.0, "y": 20.0}


def test_in_order_the_first_batch_has_all_workers_first() -> None:
    """By priority, then by arrival; decoding by others comes after."""
    left = (a_kind("late", jobs=10, seq=2), a_kind("early", jobs=4, seq=1))

    ends_s = ends_in_order(left, DIT, CREW)

    after_s = COST.decode_s
    assert ends_s == {"early": 40.0 + after_s, "late": 140.0 + after_s}
    urgent = (replace(left[0], priority=1), left[1])
    assert ends_in_order(urgent, DIT, CREW) == {"late": 100.0 + after_s, "early": 140.0 + after_s}


def test_by_shares_all_batches_flow_until_they_are_empty() -> None:
    """Twice the share is twice the flow; what is left over at the end goes to the others."""
    left = (a_kind("x", jobs=10, seq=1), a_kind("y", jobs=10, seq=2))
    after_s = COST.decode_s

    assert ends_by_shares(left, DIT, CREW, {}) == {"x": 200.0 + after_s, "y": 200.0 + after_s}
    assert ends_by_shares(left, DIT, CREW, {"x": 3.0}) == {
        "x": pytest.approx(400.0 / 3 + after_s),
        "y": pytest.approx(200.0 + after_s),
    }


def test_no_batch_ends_before_its_longest_job_could() -> None:
    """However many workers idle meanwhile, no dop is faster than the fastest."""
    crew = {MODEL: frozenset(map(str, range(100)))}

    assert ends_in_order((a_kind("b"),), DIT, crew) == {"b": 10 * 1.0 + COST.decode_s}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 50), st.sampled_from((0, 3, 10)))))
def test_both_flows_use_up_the_same_time(kinds: list[tuple[str, int, int]]) -> None:
    """However it is divided, the last batch ends when all the work is done."""
    left = [
        a_kind(batch, jobs=jobs, seq=seq, steps_left=steps)
        for seq, (batch, jobs, steps) in enumerate(kinds)
    ]
    work = replace(DIT, decodes=True)

    ends_s = ends_in_order(left, work, CREW), ends_by_shares(left, work, CREW, {"x": 2.5})

    assert set(ends_s[0]) == set(ends_s[1]) == {kind.batch_id for kind in left}
    if left:
        all_s = sum(left_of_batches(left, work).values()) / 2
        for found in ends_s:
            assert max(found.values()) >= all_s - 1e-6
        longest_s = max(COST.dit_s(COST.fastest_dop, kind.steps_left) for kind in left)
        if all_s > longest_s + COST.decode_s:
            assert max(ends_s[0].values()) == pytest.approx(max(ends_s[1].values()))


def test_cost_is_known_by_a_profile_or_by_live_steps() -> None:
    """A guess alone is none."""
    guess = replace(COST, basis=Basis.ASSUMED)

    assert is_known(COST)
    assert not is_known(guess)
    assert is_known(replace(guess, bases=(Basis.ASSUMED,), live=(Live.OBSERVED,)))


def test_shapes_have_costs_of_their_own() -> None:
    """What is summed is asked of the cost model for each kind."""
    costs = FakeCosts(table={(MODEL, P240): a_cost(5.0, optimal=1)}, other=COST)
    work = Work(costs=costs, decodes=False)

    assert work.left_s(a_kind("b", shape=P240)) == 50.0


@given(work_s=st.floats(0.1, 1e4), workers=st.integers(0, 5000), more=st.integers(1, 5000))
def test_more_workers_are_looked_back_at_less_far_but_over_more_jobs(
    work_s: float, workers: int, more: int
) -> None:
    """Never less far than for the load of late; with none it is as with one."""
    few, many = spans(work_s, workers), spans(work_s, workers + more)

    assert few.load_s == many.load_s == LOAD_SPAN * work_s
    assert few.latency_s >= many.latency_s > many.load_s
    assert few.latency_s * max(workers, 1) <= many.latency_s * (workers + more)
