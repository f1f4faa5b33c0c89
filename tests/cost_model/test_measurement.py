from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.cost_model import Observation
from ddit_batch.errors import RequestError, ServiceError
from ddit_batch.job import Phase, Shape
from ddit_batch.measurement import (
    Conditions,
    Findings,
    PhaseTime,
    dops_to_measure,
    measured_profile,
    profile_name,
    prompt_lines,
    stand_in,
    usual_shapes,
    videos_at_once,
)
from ddit_batch.model_config import Backend, Parallelism, known_models
from ddit_batch.profile import Profile, make_cost_model, profile_yaml
from ddit_batch.prompt_file import parse

TINY = known_models()["tiny-wan"]
WAN = known_models()["wan2.1-t2v-1.3b"]
"""12 heads."""
SMALL, LARGE = Shape(64, 64, 9), Shape(128, 128, 9)
CONDITIONS = Conditions(
    device="", software="ddit-batch 1", date="2026-01-02", steps=10, workers=2, dops=(1, 2)
)


def observation(shape: Shape, dop: int, *step_s: float, model: str = "tiny-wan") -> Observation:
    return Observation(model=model, shape=shape, dop=dop, step_s=step_s, count=len(step_s))


def took(phase: Phase, shape: Shape, *seconds: float) -> list[PhaseTime]:
    return [PhaseTime(phase=phase, shape=shape, seconds=s, device="cpu") for s in seconds]


FOUND = Findings(
    observations=(observation(SMALL, 1, 0.1, 0.2),),
    phases=(
        *took(Phase.ENCODE, SMALL, 0.01),
        *took(Phase.DIT, SMALL, 1.0),
        *took(Phase.VAE, SMALL, 1.0),
    ),
)


def test_a_profile_has_the_medians_of_what_was_measured() -> None:
    """By shape and dop for steps, by shape for decoding, over all for encoding; any dop."""
    profile = measured_profile(
        TINY,
        Findings(
            observations=(
                observation(LARGE, 2, 0.5),
                observation(SMALL, 1, 0.1, 9.0, 0.2),
                observation(LARGE, 1, 0.7, 0.8),
                observation(SMALL, 1, 77.0, model="other"),
            ),
            phases=(
                *took(Phase.ENCODE, SMALL, 0.01, 0.02, 5.0),
                *took(Phase.DIT, SMALL, 4.0),
                *took(Phase.VAE, SMALL, 1.0, 2.0, 30.0),
                *took(Phase.VAE, LARGE, 8.0),
            ),
        ),
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
        FOUND + Findings(observations=(observation(LARGE, 1, 0.7),)),
        CONDITIONS,
        name="mine",
    )

    said = profile.provenance
    assert (said.device, said.software, said.date) == ("cpu", "ddit-batch 1", "2026-01-02")
    assert said.samples == 1
    assert "videos of 10 steps" in said.sources[0]
    assert "as many at once as 2 workers make at that dop" in said.sources[0]
    assert profile.heads == TINY.heads


def test_a_row_says_which_dops_it_lacks() -> None:
    """Of those that were to be measured; the others are not missed."""
    at_two = Findings(observations=(observation(LARGE, 1, 0.7), observation(LARGE, 2, 0.4)))

    profile = measured_profile(TINY, FOUND + at_two, CONDITIONS, name="mine")

    small, large = profile.table
    assert small.note.startswith("Not measured: dop 2.")
    assert not large.note
    as_it_came = replace(CONDITIONS, dops=())
    assert not any(r.note for r in measured_profile(TINY, FOUND, as_it_came, name="mine").table)


@pytest.mark.parametrize(
    "found",
    [
        Findings(),
        replace(FOUND, observations=(observation(SMALL, 2, 0.1),)),
        replace(FOUND, phases=()),
    ],
)
def test_nothing_is_made_of_a_measurement_that_lacks_the_least(found: Findings) -> None:
    """Steps of one worker, encoding, decoding."""
    with pytest.raises(ServiceError, match="no video of tiny-wan came out"):
        measured_profile(TINY, found, CONDITIONS, name="mine")


def test_only_segments_of_the_dop_that_is_measured_count() -> None:
    """What a leader did alone before its group had formed is no measure of one worker."""
    found = Findings(
        observations=(observation(SMALL, 1, 9.0), observation(SMALL, 2, 0.1)),
        phases=FOUND.phases,
        start_s=(0.1,),
    )

    assert found.at(2) == replace(found, observations=(observation(SMALL, 2, 0.1),))


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ((1,), (), (1,)),
        ((3,), (), (1, 2)),
        ((4, 2), (), (1, 2, 4)),
        ((16,), (), (1, 2, 4)),
        ((), (), (1,)),
        ((12,), (3,), (1, 3)),
        ((12,), (12, 6, 6), (1, 6, 12)),
    ],
)
def test_every_doubling_that_the_workers_can_form_is_measured_or_what_is_asked_for(
    nodes: tuple[int, ...], asked: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Groups stay inside a node; 12 heads have no dop 8; one worker is always measured."""
    assert dops_to_measure(WAN, (SMALL,), nodes, asked) == expected


@pytest.mark.parametrize(
    ("backend", "asked", "why"),
    [
        ("xfuser", 8, "8 does not divide its 12 attention heads: use 1, 2, 3, 4, 6, 12"),
        ("xfuser", 6, r"no node has more than 4 DiT workers that serve .*--workers"),
        ("diffusers", 4, r"4 ranks do not divide 15 tokens.*: use 1, 3$"),
    ],
)
def test_a_dop_that_cannot_be_measured_is_refused_with_those_that_can(
    backend: Backend, asked: int, why: str
) -> None:
    """Not legal for any of the shapes, or wider than a node."""
    model = WAN.model_copy(update={"parallelism": Parallelism(backend=backend)})

    with pytest.raises(RequestError, match=rf"--dop {asked} cannot be measured.*{why}"):
        dops_to_measure(model, (Shape(48, 80, 1),), (4,), (asked,))


@given(
    nodes=st.lists(st.integers(1, 9), max_size=4), dop=st.integers(1, 9), shapes=st.integers(1, 3)
)
def test_as_many_videos_of_a_shape_are_in_a_row_as_are_made_at_once(
    nodes: list[int], dop: int, shapes: int
) -> None:
    """So that all groups are busy with the same; and each shape comes after each."""
    at_once = videos_at_once(nodes, dop)
    kinds = (SMALL, LARGE, Shape(64, 64, 5))[:shapes]

    assert 0 <= at_once * dop <= sum(nodes)
    assert at_once >= sum(workers >= dop for workers in nodes)
    lines = prompt_lines("m", kinds, steps=3, repeats=2, stamp="now", at_once=at_once).splitlines()
    heights = [json.loads(line)["height"] for line in lines]
    assert heights == [k.height for k in (*kinds, *reversed(kinds)) for _ in range(at_once)]
    assert len({json.loads(line)["custom_id"] for line in lines}) == len(lines)


@pytest.mark.parametrize("dops", [(1,), (2,), (3, 6)])
def test_the_scheduler_of_a_measurement_finds_every_dop_legal(dops: tuple[int, ...]) -> None:
    """For every shape; the file can be read back."""
    profile = stand_in(WAN, SMALL, dops)

    assert Profile.model_validate(yaml.safe_load(profile_yaml(profile))) == profile
    costs = make_cost_model([profile])
    assert costs.cost(WAN.name, LARGE).dops == tuple(sorted({1, *dops}))


@pytest.mark.parametrize("name", sorted(known_models()))
def test_the_usual_shapes_are_shapes_that_the_model_takes(name: str) -> None:
    """Every line is right, and at least two shapes differ in tokens."""
    model = known_models()[name]
    shapes = usual_shapes(model)

    lines = prompt_lines(name, shapes, steps=3, repeats=2, stamp="now")

    parsed = parse(lines, file_name="f", models={name: model}, default_model=name)
    assert not parsed.problems
    assert [request.shape for request in parsed.requests] == [*shapes, *reversed(shapes)]
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
