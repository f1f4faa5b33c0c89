from __future__ import annotations

import pytest

from ddit_batch.cost_model import Observation
from ddit_batch.job import Phase, Shape
from ddit_batch.measurement import (
    Conditions,
    PhaseTime,
    measured_profile,
    profile_name,
    prompt_lines,
    usual_shapes,
)
from ddit_batch.model_config import known_models
from ddit_batch.profile import make_cost_model
from ddit_batch.prompt_file import parse

TINY = known_models()["tiny-wan"]
SMALL, LARGE = Shape(64, 64, 9), Shape(128, 128, 9)
CONDITIONS = Conditions(device="", software="ddit-batch 1", date="2026-01-02", steps=10)


def observation(shape: Shape, dop: int, *step_s: float, model: str = "tiny-wan") -> Observation:
    return Observation(model=model, shape=shape, dop=dop, step_s=step_s, count=len(step_s))


def took(phase: Phase, shape: Shape, *seconds: float) -> list[PhaseTime]:
    return [PhaseTime(phase=phase, shape=shape, seconds=s, device="cpu") for s in seconds]


def test_a_profile_has_the_medians_of_what_was_measured() -> None:
    """By shape and dop for steps, by shape for decoding, over all for encoding; any dop."""
    profile = measured_profile(
        TINY,
        [
            observation(LARGE, 2, 0.5),
            observation(SMALL, 1, 0.1, 9.0, 0.2),
            observation(LARGE, 1, 0.7, 0.8),
            observation(SMALL, 1, 77.0, model="other"),
        ],
        [
            *took(Phase.ENCODE, SMALL, 0.01, 0.02, 5.0),
            *took(Phase.DIT, SMALL, 4.0),
            *took(Phase.VAE, SMALL, 1.0, 2.0, 30.0),
            *took(Phase.VAE, LARGE, 8.0),
        ],
        CONDITIONS,
        name="mine",
    )

    cost = make_cost_model([profile]).cost("tiny-wan", LARGE)
    assert (cost.dops, cost.step_s, cost.decode_s) == ((1, 2), (0.75, 0.5), 8.0)
    cost = make_cost_model([profile]).cost("tiny-wan", SMALL)
    assert (cost.at(1), cost.encode_s, cost.decode_s) == (0.2, 0.02, 2.0)


def test_a_measured_profile_says_under_what_conditions() -> None:
    """Device, software, date, and the fewest samples of any number."""
    profile = measured_profile(
        TINY,
        [observation(SMALL, 1, 0.1, 0.2), observation(LARGE, 1, 0.7)],
        [
            *took(Phase.ENCODE, SMALL, 0.01),
            *took(Phase.DIT, SMALL, 1.0),
            *took(Phase.VAE, SMALL, 1),
        ],
        CONDITIONS,
        name="mine",
    )

    said = profile.provenance
    assert (said.device, said.software, said.date) == ("cpu", "ddit-batch 1", "2026-01-02")
    assert said.samples == 1
    assert profile.heads == TINY.heads


@pytest.mark.parametrize("name", sorted(known_models()))
def test_the_usual_shapes_are_shapes_that_the_model_takes(name: str) -> None:
    """Every line is right, and at least two shapes differ in tokens."""
    model = known_models()[name]
    shapes = usual_shapes(model)

    lines = prompt_lines(name, shapes, steps=3, repeats=2, stamp="now")

    parsed = parse(lines, file_name="f", models={name: model}, default_model=name)
    assert not parsed.problems
    assert [request.shape for request in parsed.requests] == [*shapes, *shapes]
    assert len({(s.height * s.width, s.num_frames) for s in shapes}) > 1
    assert {request.num_inference_steps for request in parsed.requests} == {3}


def test_no_embedding_is_found_in_the_cache() -> None:
    """Prompts differ within a measurement and from one to the next: else encoding costs nothing."""
    prompts = [
        request.prompt
        for stamp in ("one", "two")
        for request in parse(
            prompt_lines("tiny-wan", (SMALL, LARGE), steps=3, repeats=2, stamp=stamp),
            file_name="f",
            models={"tiny-wan": TINY},
            default_model="tiny-wan",
        ).requests
    ]

    assert len(set(prompts)) == 8


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("my-gpu", "my-gpu"), ("my gpu (2)", "my-gpu-2-"), (".hidden", "hidden"), ("()", "-")],
)
def test_a_profiles_name_is_made_of_what_names_may_have(wanted: str, name: str) -> None:
    """A file may be called anything."""
    assert profile_name(wanted) == (name if name != "-" else "measured")
