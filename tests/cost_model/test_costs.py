from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles_made_up import a_profile, shape_of, tables

from ddit_batch.cost_model import Basis, Cost, CostModel, Live
from ddit_batch.job import Shape
from ddit_batch.profile import known_profiles, make_cost_model

PAPER = make_cost_model([known_profiles()["ddit-opensora-h800"]])
A_SHAPE = shape_of(100)


def cost_of(step_s: dict[int, float], **changes: object) -> Cost:
    """The cost of one shape that takes *step_s* by dop."""
    profile = a_profile({dop: {A_SHAPE: s} for dop, s in step_s.items()}, **changes)
    return CostModel(profiles=(profile,)).cost("wan", A_SHAPE)


@pytest.mark.parametrize(
    ("shape", "dop"),
    [(Shape(144, 256, 51), 1), (Shape(240, 426, 51), 2), (Shape(360, 640, 51), 4)],
)
def test_the_optimal_dops_of_the_paper_are_reproduced(shape: Shape, dop: int) -> None:
    """DDiT has B = 1, 2 and 4 for 144p, 240p and 360p (arXiv 2506.13497)."""
    assert PAPER.cost("opensora-1.2", shape).optimal_dop == dop


def test_the_optimal_dop_is_not_the_fastest_one() -> None:
    """At 360p the paper stops at 4 although 8 still gains 34 %."""
    cost = PAPER.cost("opensora-1.2", Shape(360, 640, 51))

    assert (cost.optimal_dop, cost.fastest_dop) == (4, 8)


@pytest.mark.parametrize(
    ("step_s", "optimal", "fastest"),
    [
        ({1: 8.0}, 1, 1),
        ({1: 8.0, 2: 8.0, 4: 9.0}, 1, 1),  # no doubling gains
        ({1: 8.0, 2: 5.0, 4: 2.0}, 4, 4),
        ({1: 8.0, 2: 4.0, 4: 2.0, 8: 1.0}, 2, 8),  # of equal gains the narrowest
        ({1: 8.0, 2: 9.0, 4: 4.0}, 4, 4),  # the first doubling loses, the second gains
        ({1: 8.0, 2: 5.0, 4: 5.0}, 2, 2),  # a worker more that gains nothing only costs
        ({1: 8.0, 2: 7.0, 3: 2.0}, 2, 3),  # 3 is no doubling
    ],
)
def test_the_best_dops_are_read_off_the_steps(
    step_s: dict[int, float], optimal: int, fastest: int
) -> None:
    """B is the doubling with the largest gain; the fastest dop has the shortest step."""
    cost = cost_of(step_s)

    assert (cost.optimal_dop, cost.fastest_dop) == (optimal, fastest)


@given(table=tables())
def test_the_optimal_dop_gains_most_of_all_doublings(table: dict[int, dict[Shape, float]]) -> None:
    """No doubling of one power of two to the next gains more than the one to B."""
    (shape, *_) = table[1]
    cost = CostModel(profiles=(a_profile(table),)).cost("wan", shape)
    gains = {}
    for dop in (2, 4, 8):
        if dop in cost.dops and dop // 2 in cost.dops:
            gains[dop] = 1 - cost.at(dop) / cost.at(dop // 2)
        else:
            break

    best = max(gains.values(), default=0.0)
    if best <= 0:
        assert cost.optimal_dop == 1
    else:
        assert gains[cost.optimal_dop] == best


def test_efficiency_is_the_useful_share_of_the_workers() -> None:
    """t(1) / (k t(k)): 1 for ideal scaling."""
    cost = cost_of({1: 8.0, 2: 4.0, 4: 4.0})

    assert [cost.efficiency(dop) for dop in cost.dops] == [1.0, 1.0, 0.5]


def test_seconds_and_widths_are_looked_up() -> None:
    """What policies ask at every decision."""
    cost = cost_of({1: 8.0, 2: 5.0, 4: 3.0})

    assert [cost.at(dop) for dop in cost.dops] == [8.0, 5.0, 3.0]
    assert [cost.widest(n) for n in (1, 2, 3, 4, 5, 64)] == [1, 2, 2, 4, 4, 4]
    assert cost.dit_s(2, steps=10) == 50.0


def test_more_workers_than_the_fastest_dop_are_no_faster() -> None:
    """Of equally fast dops the narrowest; with too few workers for it, the best of the others."""
    cost = cost_of({1: 8.0, 2: 9.0, 3: 4.0, 4: 4.0, 8: 5.0})

    assert [cost.fastest(n) for n in (1, 2, 3, 4, 8, 64)] == [1, 1, 3, 3, 3, 3]


@given(table=tables(), steps=st.lists(st.integers(0, 300), max_size=300))
def test_what_is_left_is_steps_and_decode(
    table: dict[int, dict[Shape, float]], steps: list[int]
) -> None:
    """The same each time it is asked, however many numbers of steps were asked in between."""
    cost = CostModel(profiles=(a_profile(table),)).cost("wan", A_SHAPE)

    for count in (*steps, *steps):
        left = cost.left(count)

        assert left.at == {dop: cost.dit_s(dop, count) + cost.decode_s for dop in cost.dops}
        assert left.by_dop == tuple((dop, left.at[dop], cost.at(dop)) for dop in cost.dops)
        assert (left.work_s, left.fastest_s) == (left.at[1], min(left.at.values()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1, 2, 3, 4, 5, 8)),
        ({"heads": {"wan": 12}}, (1, 2, 3, 4)),
        ({"heads": {"wan": 7}}, (1,)),
        ({"max_dop": 4}, (1, 2, 3, 4)),
        ({"max_dop": 1}, (1,)),
        ({"unpadded": frozenset({"wan"})}, (1, 2, 4, 5)),  # 100 tokens
        ({"unpadded": frozenset({"other"})}, (1, 2, 3, 4, 5, 8)),
        ({"unpadded": frozenset({"wan"}), "max_dop": 4, "heads": {"wan": 10}}, (1, 2)),
    ],
)
def test_a_legal_dop_is_known_and_divides_what_it_must(
    options: dict[str, object], expected: tuple[int, ...]
) -> None:
    """It divides the heads, and the tokens where the backend cannot pad, up to the cap."""
    table = {dop: {A_SHAPE: 1.0} for dop in (1, 2, 3, 4, 5, 8)}

    model = CostModel(profiles=(a_profile(table),), **options)

    assert model.cost("wan", A_SHAPE).dops == expected


@given(
    table=tables(),
    heads=st.integers(1, 48),
    max_dop=st.none() | st.integers(1, 8),
    pads=st.booleans(),
    tokens=st.integers(1, 1000),
)
def test_every_cost_has_legal_dops_and_positive_seconds(
    *,
    table: dict[int, dict[Shape, float]],
    heads: int,
    max_dop: int | None,
    pads: bool,
    tokens: int,
) -> None:
    """Whatever is asked: dop 1 first, ascending, all rules kept, the best dops among them."""
    model = CostModel(
        profiles=(a_profile(table, heads=heads),),
        max_dop=max_dop,
        unpadded=frozenset() if pads else frozenset({"wan"}),
    )

    cost = model.cost("wan", shape_of(tokens))

    assert cost.dops[0] == 1
    assert list(cost.dops) == sorted(set(cost.dops))
    assert all(heads % dop == 0 for dop in cost.dops)
    assert max_dop is None or cost.dops[-1] <= max_dop
    assert pads or all(tokens % dop == 0 for dop in cost.dops)
    assert all(seconds > 0 for seconds in (*cost.step_s, cost.decode_s))
    assert {cost.optimal_dop, cost.fastest_dop} <= set(cost.dops)
    assert len(cost.step_s) == len(cost.bases) == len(cost.live) == len(cost.dops)


def test_a_model_without_a_profile_has_an_answer_and_says_what_it_is_worth() -> None:
    """The live system can always say something; nothing is assumed of how it scales."""
    cost = CostModel().cost("never-seen", Shape(480, 832, 81))

    assert cost.dops == (1,)
    assert {cost.basis, cost.encode_basis, cost.decode_basis} == {Basis.ASSUMED}
    assert cost.at(1) > 0


def test_scaling_is_assumed_where_it_is_told() -> None:
    """Dops that nobody measured become legal, and say that they are assumed."""
    cost = cost_of({1: 8.0, 2: 5.0}, doubling_efficiency=0.8, assumed_max_dop=8, heads=4)

    assert cost.dops == (1, 2, 4)
    assert cost.at(4) == pytest.approx(5.0 / 1.6)
    assert cost.bases == (Basis.MEASURED, Basis.MEASURED, Basis.ASSUMED)
    assert cost.basis is Basis.ASSUMED


def test_the_first_profile_that_speaks_for_a_model_counts() -> None:
    """Names may have wildcards, and case does not count."""
    first = a_profile({1: {A_SHAPE: 1.0}}, models=("wan2.1-14b", "wan2.1-14b-*"))
    second = a_profile({1: {A_SHAPE: 2.0}}, models=("wan*",))
    model = CostModel(profiles=(first, second))

    seconds = {
        name: model.cost(name, A_SHAPE).at(1)
        for name in ("wan2.1-14b", "Wan2.1-14B-Diffusers", "wan2.1-14bis")
    }

    assert list(seconds.values()) == [1.0, 1.0, 2.0]


def test_a_cost_of_the_table_stands_as_it_is() -> None:
    """What is given wins over what would be computed."""
    given_cost = cost_of({1: 1.0})

    model = CostModel(table={("wan", A_SHAPE): given_cost})

    assert model.cost("wan", A_SHAPE) is given_cost


def test_the_same_question_is_answered_once() -> None:
    """The second answer is the first one, and the memory of it makes no two models differ."""
    profile = a_profile({1: {A_SHAPE: 1.0}})
    asked, unasked = CostModel(profiles=(profile,)), CostModel(profiles=(profile,))

    first = asked.cost("wan", A_SHAPE)

    assert asked.cost("wan", A_SHAPE) is first
    assert asked == unasked
    assert first.live == (Live.NONE,)
