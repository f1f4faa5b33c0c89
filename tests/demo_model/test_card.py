"""The card says what was measured, and the examples keep to what it claims."""

from __future__ import annotations

import json

from demo_model.card import BARS, FIGURES, FILE, card, claimed, current
from demo_model.examples import examples

FACTS = {"megabytes": 4.6, "count": 200, "how": "By hand."}


def figures(**worse: float) -> dict[str, dict[str, float]]:
    good = dict.fromkeys(BARS, 1.0)
    return {"chance": dict.fromkeys(BARS, 0.2), "64x64x9": good, "128x128x9": good | worse}


def test_card_is_that_of_the_figures() -> None:
    assert FILE.read_text("utf-8") == current()


def test_an_attribute_is_claimed_if_it_is_right_often_enough_everywhere() -> None:
    assert claimed(figures()) == list(BARS)
    for name, bar in BARS.items():
        assert name in claimed(figures(**{name: bar}))
        assert name not in claimed(figures(**{name: bar - 0.01}))


def test_card_says_what_is_not_claimed_and_where() -> None:
    text = card(figures(form=0.5), FACTS)

    assert "form (at 128x128x9)" in text.partition("Not learned")[2]
    assert (
        "form" not in text.partition("**Claimed**")[2].partition("**Not learned")[0].split("):")[1]
    )


def test_examples_ask_for_nothing_that_the_model_has_not_learned() -> None:
    claims = claimed(json.loads(FIGURES.read_text("utf-8")))

    assert {"color", "background", "form", "size"} <= set(claims)
    assert {example.scene.change for example in examples()} <= set(claims)
