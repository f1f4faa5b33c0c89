"""How workers may share a step: which dops fit, told before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.errors import ConfigError
from ddit_batch.model_config import Backend, Parallelism, load_model_config

parallelisms = st.builds(
    Parallelism, backend=st.just(Backend.XFUSER), guidance=st.booleans(), ring=st.integers(1, 4)
) | st.builds(Parallelism, backend=st.just(Backend.DIFFUSERS), guidance=st.booleans())
requests = {"heads": st.integers(1, 40), "tokens": st.integers(1, 500), "is_guided": st.booleans()}


@pytest.mark.parametrize(
    ("parallelism", "dop", "tokens", "expected"),
    [
        (Parallelism(), 4, 27, None),
        (Parallelism(), 8, 48, "8 ranks exchange heads and do not divide 12 heads"),
        (Parallelism(guidance=True), 8, 27, None),
        (Parallelism(guidance=True), 5, 48, "5 ranks exchange heads and do not divide 12 heads"),
        (Parallelism(ring=2), 8, 48, None),
        (Parallelism(ring=2), 4, 27, "4 ranks do not divide 27 tokens, and rings cannot pad"),
        (Parallelism(ring=2), 3, 28, None),
        (Parallelism(backend=Backend.DIFFUSERS), 4, 48, None),
        (
            Parallelism(backend=Backend.DIFFUSERS),
            4,
            27,
            "4 ranks do not divide 27 tokens, and diffusers cannot pad",
        ),
    ],
)
def test_a_refusal_says_which_rule_is_broken(
    parallelism: Parallelism, dop: int, tokens: int, expected: str | None
) -> None:
    """Twelve heads, guided, as Wan 2.1 1.3B has them."""
    assert parallelism.refusal(dop=dop, heads=12, tokens=tokens, is_guided=True) == expected


@given(parallelism=parallelisms, **requests)
def test_one_worker_takes_every_request(
    *, parallelism: Parallelism, heads: int, tokens: int, is_guided: bool
) -> None:
    """Nothing is split."""
    assert parallelism.refusal(dop=1, heads=heads, tokens=tokens, is_guided=is_guided) is None


@given(parallelism=parallelisms, dop=st.integers(2, 16), **requests)
def test_halves_take_what_half_as_many_workers_would_take(
    *, parallelism: Parallelism, dop: int, heads: int, tokens: int, is_guided: bool
) -> None:
    """With parallel guidance a guided request asks no more of a group than of its half."""
    in_halves = parallelism.model_copy(update={"guidance": True})
    plain = parallelism.model_copy(update={"guidance": False})

    refusal = in_halves.refusal(dop=2 * dop, heads=heads, tokens=tokens, is_guided=True)

    assert refusal == plain.refusal(dop=dop, heads=heads, tokens=tokens, is_guided=is_guided)


@given(dop=st.integers(1, 16), **requests)
def test_the_backends_differ_only_in_tokens_that_do_not_divide(
    *, dop: int, heads: int, tokens: int, is_guided: bool
) -> None:
    """Heads must divide for both; xfuser pads."""
    asked = {"dop": dop, "heads": heads, "tokens": tokens, "is_guided": is_guided}

    xfuser = Parallelism().refusal(**asked) is None
    diffusers = Parallelism(backend=Backend.DIFFUSERS).refusal(**asked) is None

    assert xfuser == (heads % dop == 0)
    assert diffusers == (xfuser and tokens % dop == 0)


def test_a_ring_needs_the_backend_that_has_rings(tmp_path: Path) -> None:
    """The model config is refused with the rule."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{name: mine, family: wan, source: some/where, heads: 4, "
        "parallelism: {backend: diffusers, ring: 2}}"
    )

    with pytest.raises(ConfigError, match="ring 2 needs backend xfuser; diffusers has no rings"):
        load_model_config(path)
