"""Handoffs: exact bits there and back, or an error."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.handoff import (
    embeddings_from_bytes,
    embeddings_to_bytes,
    latents_from_bytes,
    latents_to_bytes,
)
from ddit_batch.phases.models.base import Embeddings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_embeddings_keep_their_bits_and_dtype(dtype: torch.dtype) -> None:
    """What the encoder made is what the transformer gets."""
    prompt, negative = torch.randn(2, 1, 64, 32).to(dtype).unbind()

    found = embeddings_from_bytes(embeddings_to_bytes(Embeddings(prompt=prompt, negative=negative)))

    assert torch.equal(found.prompt, prompt)
    assert found.negative is not None
    assert torch.equal(found.negative, negative)
    assert found.prompt.dtype == dtype


def test_embeddings_without_guidance_stay_without() -> None:
    """A missing negative prompt is missing after the journey too."""
    prompt = torch.randn(1, 64, 32)

    found = embeddings_from_bytes(embeddings_to_bytes(Embeddings(prompt=prompt, negative=None)))

    assert found.negative is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_latents_keep_their_bits_and_dtype(dtype: torch.dtype) -> None:
    """What the transformer made is what the VAE gets, also of a tensor that is not contiguous."""
    latents = torch.randn(1, 16, 3, 8, 12).to(dtype).transpose(3, 4)

    found = latents_from_bytes(latents_to_bytes(latents))

    assert torch.equal(found, latents)
    assert found.dtype == dtype


@pytest.mark.parametrize("length", [0, 4, 60, -1])
def test_truncated_handoffs_are_errors(length: int) -> None:
    """Half a file is not read as a whole one."""
    latents = latents_to_bytes(torch.randn(1, 16, 3, 8, 8))
    embeddings = embeddings_to_bytes(Embeddings(prompt=torch.randn(1, 4, 4), negative=None))

    with pytest.raises(ArtifactError, match="latents of"):
        latents_from_bytes(latents[:length])
    with pytest.raises(ArtifactError, match="embeddings of"):
        embeddings_from_bytes(embeddings[:length])


def test_one_handoff_is_not_taken_for_the_other() -> None:
    """Latents where embeddings are expected are named for what they are."""
    data = latents_to_bytes(torch.randn(1, 16, 3, 8, 8))

    with pytest.raises(ArtifactError, match="not embeddings: the file holds latents"):
        embeddings_from_bytes(data)


def test_handoff_with_a_flipped_bit_is_an_error() -> None:
    """Wherever it is: in the length, in the header or in the numbers."""
    latents = latents_to_bytes(torch.randn(1, 2, 1, 2, 2))

    for position in range(len(latents)):
        damaged = bytearray(latents)
        damaged[position] ^= 1
        with pytest.raises(ArtifactError):
            latents_from_bytes(bytes(damaged))


def test_handoff_without_a_digest_is_an_error() -> None:
    """What another program wrote is not trusted."""
    with pytest.raises(ArtifactError, match="digest"):
        latents_from_bytes(safetensors.torch.save({"latents": torch.randn(4)}))
