"""What one phase hands to the next, as safetensors: exact bits, and no code to run on reading.

Where the bytes are kept is the caller's business.
"""

from __future__ import annotations

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.models.base import Embeddings


def embeddings_to_bytes(embeddings: Embeddings) -> bytes:
    """*embeddings* with their dtypes; a missing negative prompt stays missing."""
    tensors = {"prompt": embeddings.prompt}
    if embeddings.negative is not None:
        tensors["negative"] = embeddings.negative
    return _packed(tensors)


def embeddings_from_bytes(data: bytes) -> Embeddings:
    """The inverse of ``embeddings_to_bytes``, on the CPU.

    Raises:
        ArtifactError: These are not the whole bytes of embeddings.
    """
    tensors = _unpacked(data, what="embeddings", needs="prompt")
    return Embeddings(prompt=tensors["prompt"], negative=tensors.get("negative"))


def latents_to_bytes(latents: Tensor) -> bytes:
    """Denoised latents (1, C, F', H/8, W/8) with their dtype."""
    return _packed({"latents": latents})


def latents_from_bytes(data: bytes) -> Tensor:
    """The inverse of ``latents_to_bytes``, on the CPU.

    Raises:
        ArtifactError: These are not the whole bytes of latents.
    """
    return _unpacked(data, what="latents", needs="latents")["latents"]


def _packed(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )


def _unpacked(data: bytes, *, what: str, needs: str) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as exc:
        raise ArtifactError(f"the {what} of {len(data)} bytes cannot be read: {exc}") from exc
    if needs not in tensors:
        raise ArtifactError(f"not {what}: the file holds {', '.join(sorted(tensors)) or 'nothing'}")
    return tensors
