import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.job import Shape
from ddit_batch.request import Request, derive_seed

REQUEST = Request(
    custom_id="a-cat",
    line=17,
    model="tiny-wan",
    prompt="a cat",
    negative_prompt="",
    height=64,
    width=96,
    num_frames=9,
    num_inference_steps=8,
    guidance_scale=5.0,
    seed=3,
    fps=8,
    metadata=(("a", "1"), ("b", "2")),
)


def test_a_request_survives_json() -> None:
    """What went into SQL as JSON comes out as the same request."""
    assert Request.from_json(json.loads(json.dumps(REQUEST.to_json()))) == REQUEST


def test_metadata_is_an_object_in_json_and_sorted_on_return() -> None:
    """A database that reorders an object's keys does not change the request."""
    fields = REQUEST.to_json()
    assert fields["metadata"] == {"a": "1", "b": "2"}

    fields["metadata"] = {"b": "2", "a": "1"}

    assert Request.from_json(fields) == REQUEST


def test_the_shape_is_named_width_first() -> None:
    """A shape prints as people write sizes: width x height x frames."""
    assert REQUEST.shape == Shape(height=64, width=96, num_frames=9)
    assert str(REQUEST.shape) == "96x64x9"


def test_a_request_cannot_be_changed() -> None:
    """A request is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        REQUEST.seed = 4  # type: ignore[misc]  # that is the point


def test_a_derived_seed_is_the_same_in_every_process_and_release() -> None:
    """The seed of a line without one is part of what users rely on."""
    assert derive_seed(line=1, content={"prompt": "a cat"}) == 669267415


def test_a_derived_seed_ignores_the_order_of_keys() -> None:
    """Two tools that write the same line in another order get the same video."""
    one = derive_seed(line=1, content={"prompt": "a", "fps": 8})
    other = derive_seed(line=1, content={"fps": 8, "prompt": "a"})

    assert one == other


def test_equal_prompts_on_two_lines_have_two_seeds() -> None:
    """A prompt that is repeated to get variants gets variants."""
    content = {"prompt": "a cat"}

    assert derive_seed(line=1, content=content) != derive_seed(line=2, content=content)


@given(st.integers(min_value=1), st.dictionaries(st.text(), st.text() | st.integers()))
def test_a_derived_seed_has_32_bits(line: int, content: dict[str, object]) -> None:
    """A derived seed is one that a user could have written."""
    assert 0 <= derive_seed(line=line, content=content) < 2**32
