from __future__ import annotations

from math import log

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from profiles_made_up import SECONDS, TOKENS, a_profile, shape_of, tables

from ddit_batch.cost import Basis
from ddit_batch.cost_curve import TokenGeometry
from ddit_batch.cost_model import CostModel
from ddit_batch.job import Shape

Table = dict[int, dict[Shape, float]]


@given(table=tables())
def test_a_measured_shape_costs_what_was_measured(table: Table) -> None:
    """Exactly, and it says so."""
    model = CostModel(profiles=(a_profile(table),))

    for dop, rows in table.items():
        for shape, seconds in rows.items():
            cost = model.cost("wan", shape)
            assert cost.at(dop) == seconds
            assert cost.basis is Basis.MEASURED


@given(table=tables(), tokens=TOKENS)
def test_between_two_measured_shapes_the_cost_is_between_theirs(table: Table, tokens: int) -> None:
    """At each dop, between the neighbours in tokens."""
    sizes = sorted(shape.width // 16 for shape in table[1])
    below = [size for size in sizes if size < tokens]
    above = [size for size in sizes if size > tokens]
    assume(below and above and tokens not in sizes)

    cost = CostModel(profiles=(a_profile(table),)).cost("wan", shape_of(tokens))

    assert cost.basis is Basis.INTERPOLATED
    for dop in cost.dops:
        ends = sorted((table[dop][shape_of(below[-1])], table[dop][shape_of(above[0])]))
        assert ends[0] <= cost.at(dop) <= ends[1]


@given(table=tables(), tokens=TOKENS)
def test_beyond_the_ends_a_step_grows_between_linearly_and_quadratically(
    table: Table, tokens: int
) -> None:
    """Attention is quadratic at most, and the rest linear, whatever the nearest two rows say."""
    sizes = sorted(shape.width // 16 for shape in table[1])
    end = sizes[0] if tokens < sizes[0] else sizes[-1]
    assume(not sizes[0] <= tokens <= sizes[-1])

    cost = CostModel(profiles=(a_profile(table),)).cost("wan", shape_of(tokens))

    assert cost.basis is Basis.EXTRAPOLATED
    for dop in cost.dops:
        exponent = log(cost.at(dop) / table[dop][shape_of(end)]) / log(tokens / end)
        assert 1 - 1e-6 <= exponent <= 2 + 1e-6


@given(table=tables(monotone=True), few=TOKENS, more=TOKENS)
def test_more_tokens_never_cost_less_if_they_did_not_when_measured(
    table: Table, few: int, more: int
) -> None:
    """At every dop, inside and outside of the measured range."""
    few, more = sorted((few, more))
    model = CostModel(profiles=(a_profile(table),))

    small, large = model.cost("wan", shape_of(few)), model.cost("wan", shape_of(more))

    for dop in small.dops:
        assert small.at(dop) <= large.at(dop) * (1 + 1e-9)


def test_a_dop_that_one_row_lacks_is_interpolated_at_that_dop() -> None:
    """A power law between its neighbours; the other dops stay as measured, and both are said."""
    table = {
        1: {shape_of(n): float(n) for n in (10, 20, 40)},
        2: {shape_of(10): 5.0, shape_of(40): 80.0},
    }

    cost = CostModel(profiles=(a_profile(table),)).cost("wan", shape_of(20))

    assert (cost.at(1), cost.at(2)) == (20.0, pytest.approx(20.0))
    assert cost.bases == (Basis.MEASURED, Basis.INTERPOLATED)
    assert cost.basis is Basis.INTERPOLATED


def test_one_row_is_extrapolated_by_the_stated_power() -> None:
    """Without a second one there is no slope to be seen."""
    profile = a_profile({1: {shape_of(10): 1.0}}, lone_exponent=1.5)

    assert CostModel(profiles=(profile,)).cost("wan", shape_of(40)).at(1) == pytest.approx(8.0)


def test_a_video_on_its_side_costs_the_same() -> None:
    """It has the same tokens; of two such that were measured others have the geometric mean."""
    wide, tall, square = Shape(16, 64, 1), Shape(64, 16, 1), Shape(32, 32, 1)
    model = CostModel(profiles=(a_profile({1: {wide: 2.0, tall: 8.0}}),))

    costs = {shape: model.cost("wan", shape) for shape in (wide, tall, square)}

    assert [cost.at(1) for cost in costs.values()] == [2.0, 8.0, pytest.approx(4.0)]
    assert costs[square].basis is Basis.INTERPOLATED


@given(shape=st.builds(Shape, *[st.integers(16, 1280)] * 2, st.integers(1, 129)), seconds=SECONDS)
def test_decoding_is_in_proportion_to_pixels_and_frames_and_says_that_this_is_assumed(
    shape: Shape, seconds: float
) -> None:
    """From the one shape that was measured to any other."""
    measured = Shape(360, 640, 51)
    assume(shape != measured)
    profile = a_profile({1: {measured: 1.0}}, decode_s={measured: seconds})

    cost = CostModel(profiles=(profile,)).cost("wan", shape)

    ratio = shape.height * shape.width * shape.num_frames / (360 * 640 * 51)
    assert cost.decode_s == pytest.approx(seconds * ratio)
    if ratio != 1:
        assert cost.decode_basis is Basis.ASSUMED
    assert CostModel(profiles=(profile,)).cost("wan", measured).decode_basis is Basis.MEASURED


def test_decoding_between_two_measured_shapes_is_interpolated() -> None:
    """Both are exact, and what is between them is no assumption any more."""
    profile = a_profile(
        {1: {shape_of(1): 1.0}}, decode_s={shape_of(10): 1.0, shape_of(1000): 100.0}
    )

    cost = CostModel(profiles=(profile,)).cost("wan", shape_of(100))

    assert cost.decode_s == pytest.approx(10.0)
    assert cost.decode_basis is Basis.INTERPOLATED


@pytest.mark.parametrize(
    ("geometry", "shape", "tokens"),
    [
        (TokenGeometry(), Shape(720, 1280, 81), 75_600),  # Wan 2.1 at 720p
        (TokenGeometry(), Shape(16, 16, 1), 1),
        (TokenGeometry(), Shape(17, 16, 2), 4),  # a patch over the edge, a frame after the first
        (TokenGeometry(chunk_frames=17), Shape(144, 256, 51), 2160),  # Open-Sora 1.2
        (TokenGeometry(chunk_frames=17), Shape(240, 426, 51), 6075),
        (TokenGeometry(chunk_frames=17), Shape(360, 640, 51), 13_800),
        (TokenGeometry(chunk_frames=17), Shape(16, 16, 18), 6),
        (TokenGeometry(latents_per_token=2), Shape(768, 1360, 81), 44_880),  # CogVideoX 1.5
    ],
)
def test_tokens_are_counted_as_the_models_do(
    geometry: TokenGeometry, shape: Shape, tokens: int
) -> None:
    """Strides and patches in space and time, rounded up."""
    assert geometry.tokens(shape) == tokens
