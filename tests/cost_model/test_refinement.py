from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles_made_up import a_profile, shape_of

from ddit_batch.cost_model import CostModel, Live, Observation
from ddit_batch.job import Shape

SMALL, LARGE, UNSEEN = shape_of(10), shape_of(100), shape_of(50)
PROFILE = a_profile(
    {1: {SMALL: 1.0, LARGE: 10.0}, 2: {SMALL: 0.6, LARGE: 5.0}, 4: {SMALL: 0.5, LARGE: 3.0}}
)
MODEL = CostModel(profiles=(PROFILE,))
SHAPES = (SMALL, UNSEEN, LARGE)

ratios = st.floats(min_value=0.01, max_value=100.0)


def seen(shape: Shape, dop: int, *ratios: float, model: str = "wan") -> Observation:
    """Steps that took so many times what the profile says."""
    expected_s = MODEL.cost("wan", shape).at(dop)
    return Observation(
        model=model,
        shape=shape,
        dop=dop,
        step_s=tuple(ratio * expected_s for ratio in ratios),
        count=len(ratios),
    )


observations = st.lists(
    st.builds(
        lambda shape, dop, found: seen(shape, dop, *found),
        st.sampled_from(SHAPES),
        st.sampled_from((1, 2, 4)),
        st.lists(ratios, min_size=1, max_size=8),
    ),
    max_size=6,
)


def ratio_of(model: CostModel, shape: Shape, dop: int) -> float:
    """What a step costs, by what the profile says."""
    return model.cost("wan", shape).at(dop) / MODEL.cost("wan", shape).at(dop)


@given(found=observations)
def test_a_refined_cost_is_between_the_profile_and_what_was_seen(found: list[Observation]) -> None:
    """Whatever live steps say, no ratio is beyond the largest or the smallest of theirs, and 1."""
    taken = [
        seconds / MODEL.cost("wan", each.shape).at(each.dop)
        for each in found
        for seconds in each.step_s
    ]

    refined = MODEL.refined(found)

    for shape in SHAPES:
        for dop in (1, 2, 4):
            ratio = ratio_of(refined, shape, dop)
            assert min([1.0, *taken]) * (1 - 1e-9) <= ratio <= max([1.0, *taken]) * (1 + 1e-9)


@given(found=observations, seed=st.integers())
def test_the_order_of_observations_and_samples_does_not_matter(
    found: list[Observation], seed: int
) -> None:
    """Nor does it matter how samples of the same steps are grouped."""
    rng = random.Random(seed)
    mixed = [
        dataclasses.replace(each, step_s=(seconds,), count=1)
        for each in found
        for seconds in each.step_s
    ]
    rng.shuffle(mixed)

    assert MODEL.refined(mixed).ratios == MODEL.refined(found).ratios


@given(
    true=st.floats(min_value=0.1, max_value=10.0),
    noise=st.lists(st.floats(min_value=0.99, max_value=1.01), max_size=20),
    stall=st.floats(min_value=1.0, max_value=1e6),
    dop=st.sampled_from((1, 2, 4)),
)
def test_one_stalled_sample_is_not_noticed(
    true: float, noise: list[float], stall: float, dop: int
) -> None:
    """However long it took, it moves nothing by more than the noise of the others."""
    good = [true * each for each in noise]

    ordinary = MODEL.refined([seen(LARGE, dop, *good, true)])
    stalled = MODEL.refined([seen(LARGE, dop, *good, true * stall)])

    for shape in SHAPES:
        change = ratio_of(stalled, shape, dop) / ratio_of(ordinary, shape, dop)
        assert 0.97 < change < 1.03


def test_a_first_sample_alone_moves_nothing() -> None:
    """It may be a stall: until a second one agrees, the profile is believed."""
    refined = MODEL.refined([seen(LARGE, 1, 100.0)])

    assert [ratio_of(refined, shape, 1) for shape in SHAPES] == [1.0] * 3


def test_many_samples_are_believed_and_few_are_not() -> None:
    """From the profile to what is measured, the more samples the nearer."""
    found = [ratio_of(MODEL.refined([seen(LARGE, 1, *[2.0] * n)]), LARGE, 1) for n in range(1, 60)]

    assert found[0] == 1.0
    assert found == sorted(found)
    assert found[9] > 1.9
    assert found[-1] == pytest.approx(2.0, rel=0.02)


def test_samples_that_were_dropped_still_count() -> None:
    """Of many samples a few are enough, if it is said how many there were."""
    few = dataclasses.replace(seen(LARGE, 1, 2.0, 2.0), count=100)

    assert ratio_of(MODEL.refined([few]), LARGE, 1) == pytest.approx(2.0, rel=0.02)


def test_a_ratio_is_carried_over_to_other_dops_and_shapes_and_this_is_said() -> None:
    """A slow machine is slow at everything, until it is seen to be otherwise."""
    refined = MODEL.refined([seen(LARGE, 1, *[3.0] * 50)])

    for shape in SHAPES:
        cost = refined.cost("wan", shape)
        own = shape == LARGE
        assert cost.live == (Live.OBSERVED if own else Live.CARRIED, Live.CARRIED, Live.CARRIED)
        for dop in (1, 2, 4):
            assert ratio_of(refined, shape, dop) == pytest.approx(3.0, rel=0.1)


def test_what_is_nearer_says_more() -> None:
    """A shape's own ratio goes before the model's, and a dop's own before the shape's."""
    refined = MODEL.refined(
        [
            seen(LARGE, 1, *[2.0] * 200),
            seen(LARGE, 4, *[4.0] * 99),
            seen(SMALL, 1, *[0.5] * 90),
        ]
    )

    assert ratio_of(refined, LARGE, 4) == pytest.approx(4.0, rel=0.05)
    assert ratio_of(refined, LARGE, 2) == pytest.approx(2.0, rel=0.05)
    assert ratio_of(refined, SMALL, 4) == pytest.approx(0.5, rel=0.05)
    assert ratio_of(refined, UNSEEN, 1) == pytest.approx(2.0, rel=0.05)


def test_other_models_are_left_alone() -> None:
    """Ratios belong to a model."""
    both = CostModel(profiles=(dataclasses.replace(PROFILE, models=("wan", "sora")),))

    refined = both.refined([seen(LARGE, 1, *[3.0] * 50, model="sora")])

    assert refined.cost("wan", LARGE).at(1) == both.cost("wan", LARGE).at(1)
    assert refined.cost("wan", LARGE).live == (Live.NONE,) * 3


def test_a_fixed_model_stays_as_it_is() -> None:
    """The switch that makes decisions repeatable."""
    fixed = dataclasses.replace(MODEL, is_fixed=True)

    assert fixed.refined([seen(LARGE, 1, *[3.0] * 50)]) is fixed


def test_refining_starts_from_the_profile_each_time() -> None:
    """The same observations twice are the same once; none at all give the profile back."""
    found = [seen(LARGE, 1, *[3.0] * 5)]

    once = MODEL.refined(found)

    assert once.refined(found) == once
    assert once.refined([]) == MODEL
    assert MODEL.cost("wan", LARGE).at(1) == 10.0


def test_a_model_without_a_profile_believes_its_first_step() -> None:
    """A guess is worth less than a single sample."""
    guess = CostModel()
    found = Observation(model="new", shape=LARGE, dop=1, step_s=(7.0,), count=1)

    cost = guess.refined([found]).cost("new", LARGE)

    assert cost.at(1) == pytest.approx(7.0)
    assert cost.live == (Live.OBSERVED,)


def test_a_dop_that_the_profile_does_not_have_is_left_out() -> None:
    """There is nothing to compare its steps with."""
    found = Observation(model="wan", shape=LARGE, dop=8, step_s=(9.0,) * 50, count=50)

    assert MODEL.refined([found]) == MODEL
