from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest
from sim_worlds import LARGE, MODEL, SMALL, TableCosts, a_cost

from ddit_batch.errors import RequestError
from ddit_batch.simulator import Workload
from ddit_batch.simulator.generator import generate, is_spec


class ShapedCosts(TableCosts):
    """A table whose shapes count as measured."""

    def shapes(self, model: str) -> tuple[object, ...]:
        """Those of the table."""
        del model
        return tuple(self.table)


COSTS = ShapedCosts(table={SMALL: a_cost(1.0, decode_s=2.0), LARGE: a_cost(4.0, decode_s=10.0)})


def made(spec: str, seed: int = 0, gpus: int = 8) -> Workload:
    return generate(spec, costs=COSTS, model=MODEL, steps=10, gpus=gpus, dice=Random(seed))


def test_same_seed_gives_the_same_workload() -> None:
    """And another seed another."""
    assert made("poisson:load=0.85,jobs=50") == made("poisson:load=0.85,jobs=50")
    assert made("poisson:load=0.85,jobs=50") != made("poisson:load=0.85,jobs=50", seed=1)


def test_load_is_what_arrivals_ask_for_of_what_gpus_have() -> None:
    """Mean of 12 and 50 GPU-seconds a job: at load 0.5 of 8 GPUs one comes every 7.75 s."""
    arrivals = made("poisson:load=0.5,jobs=4000").arrivals

    assert arrivals[-1].arrived_s / len(arrivals) == pytest.approx(31.0 / 4.0, rel=0.05)
    assert made("poisson:rate=2,jobs=4000").arrivals[-1].arrived_s == pytest.approx(2000, rel=0.05)


def test_arrivals_are_in_order_from_zero() -> None:
    """Each its own batch where they come one by one."""
    arrivals = made("poisson:load=0.5,jobs=100").arrivals

    assert arrivals[0].arrived_s == 0.0
    assert all(a.arrived_s < b.arrived_s for a, b in pairwise(arrivals))
    assert len({arrival.batch_id for arrival in arrivals}) == 100


def test_shapes_are_drawn_by_their_weights() -> None:
    """Uniformly over those of the profile if nothing is said."""
    even = Counter(arrival.shape for arrival in made("at-once:jobs=2000").arrivals)
    weighted = made("at-once:jobs=2000,shapes=64x64x9*3/128x128x9").arrivals

    assert even[SMALL] == pytest.approx(1000, rel=0.1)
    assert Counter(a.shape for a in weighted)[SMALL] == pytest.approx(1500, rel=0.1)


def test_all_at_once_is_one_batch_unless_said_otherwise() -> None:
    """Several batches are dealt their jobs in turn."""
    one, three = made("at-once:jobs=6"), made("at-once:jobs=6,batches=3,steps=4")

    assert {a.arrived_s for a in one.arrivals} == {0.0}
    assert len({a.batch_id for a in one.arrivals}) == 1
    assert [a.batch_id[-1] for a in three.arrivals] == ["0", "1", "2", "0", "1", "2"]
    assert {a.steps for a in three.arrivals} == {4}


def test_bursts_come_together_and_have_the_load_all_the_same() -> None:
    """Twenty jobs at an instant are a batch."""
    arrivals = made("bursts:load=0.5,size=20,jobs=4000").arrivals
    sizes = Counter(arrival.arrived_s for arrival in arrivals)

    assert set(sizes.values()) == {20}
    assert len(sizes) == len({arrival.batch_id for arrival in arrivals}) == 200
    assert arrivals[-1].arrived_s / len(arrivals) == pytest.approx(31.0 / 4.0, rel=0.2)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("poisson:jobs=5", "say either load or rate"),
        ("poisson:load=0.5,rate=1", "say either load or rate"),
        ("poisson:load=0", "load cannot be '0': use a number above 0"),
        ("poisson:load=0.5,jobs=none", "jobs cannot be 'none': use a whole number"),
        ("poisson:load=0.5,size=3", "'size=3' is no option of poisson"),
        ("at-once:jobs=5,jobs=6", "'jobs=6' is no option of at-once: write key=value once"),
        ("at-once:shapes=64x64", "shapes cannot be '64x64': write WIDTHxHEIGHTxFRAMES"),
        ("at-once:shapes=64x64x9*0", "a weight above 0"),
        ("sometimes:jobs=5", "'sometimes' is no kind: write poisson"),
    ],
)
def test_wrong_spec_is_answered_with_what_can_be_written(spec: str, message: str) -> None:
    """The value, the rule and the cure."""
    with pytest.raises(RequestError, match=message.replace("*", r"\*")):
        made(spec)


def test_specs_are_told_from_files() -> None:
    """By their kind."""
    assert is_spec("poisson:load=0.5")
    assert is_spec("at-once")
    assert not is_spec("trace.jsonl")
    assert not is_spec("folder/poisson.jsonl")
