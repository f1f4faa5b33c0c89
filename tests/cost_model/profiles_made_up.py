"""Profiles for tests: small ones with round numbers, and random ones for hypothesis."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from ddit_batch.cost import Basis
from ddit_batch.cost_curve import TokenGeometry
from ddit_batch.job import Shape
from ddit_batch.model_profile import ModelProfile

GEOMETRY = TokenGeometry(px_per_token=16, frames_per_latent=4)


def shape_of(tokens: int) -> Shape:
    """A picture of so many tokens."""
    return Shape(16, 16 * tokens, 1)


def a_profile(
    step_s: Mapping[int, Mapping[Shape, float]],
    *,
    models: tuple[str, ...] = ("wan",),
    heads: int | None = None,
    **changes: object,
) -> ModelProfile:
    """A measured profile of *step_s* (dop, shape, seconds)."""
    fields: dict[str, object] = {
        "name": "made-up",
        "geometry": GEOMETRY,
        "steps": 10,
        "encode_s": 0.5,
        "encode_basis": Basis.MEASURED,
        "decode_s": {Shape(64, 64, 9): 2.0},
        "decode_is_measured": True,
    }
    return ModelProfile(models=models, heads=heads, step_s=step_s, **{**fields, **changes})


SECONDS = st.floats(min_value=1e-3, max_value=1e3)
TOKENS = st.integers(min_value=1, max_value=100_000)


@st.composite
def tables(draw: st.DrawFn, *, monotone: bool = False) -> dict[int, dict[Shape, float]]:
    """Seconds by dop and shape: each shape at dop 1, and some at 2 and 4 as well."""
    tokens = sorted(draw(st.sets(TOKENS, min_size=1, max_size=6)))
    table: dict[int, dict[Shape, float]] = {}
    for dop in (1, *sorted(draw(st.sets(st.sampled_from((2, 3, 4, 8)))))):
        seconds = draw(st.lists(SECONDS, min_size=len(tokens), max_size=len(tokens)))
        ordered = sorted(seconds) if monotone else seconds
        table[dop] = dict(zip(map(shape_of, tokens), ordered, strict=True))
    return table
