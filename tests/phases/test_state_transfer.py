"""The state of a job on its way to a newcomer: what a solver remembers, and no noise."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import MakeRequest, Model

from ddit_batch.phases import checkpoint
from ddit_batch.phases.encode import encode
from ddit_batch.phases.sequence_parallel.transfer import Tensors, decoded, encoded

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float64]

tensors = st.builds(
    lambda dtype, shape: (torch.rand(shape) * 3).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | tensors
memories = st.recursive(
    scalars,
    lambda items: (
        st.lists(items, max_size=3)
        | st.lists(items, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), items, max_size=3)
    ),
    max_leaves=12,
)


@given(memories)
def test_whatever_a_solver_may_remember_arrives_as_it_was(memory: Any) -> None:
    """Nested collections, every number format, views and empty tensors: equal in type and bits."""
    placed = Tensors()

    header = json.dumps(encoded(memory, placed))
    arrived = decoded(json.loads(header), placed.joined(CPU))

    assert _same(arrived, memory)


def test_what_arrives_shares_nothing_with_what_carried_it() -> None:
    """The bytes of a whole state do not stay for the sake of one tensor of it."""
    placed = Tensors()
    header = encoded([torch.ones(3), torch.ones(5)], placed)
    payload = placed.joined(CPU)

    arrived = decoded(header, payload)
    payload.zero_()

    assert [tensor.tolist() for tensor in arrived] == [[1] * 3, [1] * 5]


def test_resuming_draws_no_noise(
    models: dict[str, Model], make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint brings its latents: those of the seed are not drawn to be thrown away."""
    model, request = models["unipc"], make_request()
    embeddings = encode(model.encoder, request)
    taken = checkpoint.take(model.denoiser.step(model.denoiser.start(request, embeddings)))

    def draw(_: object) -> None:
        raise AssertionError("noise was drawn")

    monkeypatch.setattr(model.denoiser, "_noise", draw)
    resumed = model.denoiser.resume(request, embeddings, taken)

    assert torch.equal(resumed.latents, taken.latents)


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, torch.Tensor):
        same_kind = found.dtype is wanted.dtype and found.shape == wanted.shape
        return same_kind and torch.equal(found, wanted)
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(found, float) and math.isnan(found)
    if isinstance(wanted, list | tuple):
        pairs = zip(found, wanted, strict=True)
        return type(found) is type(wanted) and all(_same(*pair) for pair in pairs)
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(_same(found[k], wanted[k]) for k in wanted)
    return type(found) is type(wanted) and found == wanted
