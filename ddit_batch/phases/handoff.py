"""What one phase hands to the next, as safetensors: exact bits, and no code to run on reading.

A digest of the tensors stands in the header, since the format itself would not notice a byte that
has changed on its way. Where the bytes are kept is the caller's business.
"""

from __future__ import annotations

import hashlib
import json

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.models.base import Embeddings

_DIGEST = "sha256"
_LENGTH_BYTES = 8
"""A safetensors file begins with the length of its header, little-endian."""


def embeddings_to_bytes(embeddings: Embeddings) -> bytes:
    """*embeddings* with their dtypes; a missing negative prompt stays missing."""
    tensors = {"prompt": embeddings.prompt}
    if embeddings.negative is not None:
        tensors["negative"] = embeddings.negative
    return _packed(tensors)


def embeddings_from_bytes(data: bytes) -> Embeddings:
    """The inverse of ``embeddings_to_bytes``, on the CPU.

    Raises:
        ArtifactError: These are not the whole, unchanged bytes of embeddings.
    """
    tensors = _unpacked(data, what="embeddings", needs="prompt")
    return Embeddings(prompt=tensors["prompt"], negative=tensors.get("negative"))


def latents_to_bytes(latents: Tensor) -> bytes:
    """Denoised latents (1, C, F', H/8, W/8) with their dtype."""
    return _packed({"latents": latents})


def latents_from_bytes(data: bytes) -> Tensor:
    """The inverse of ``latents_to_bytes``, on the CPU.

    Raises:
        ArtifactError: These are not the whole, unchanged bytes of latents.
    """
    return _unpacked(data, what="latents", needs="latents")["latents"]


def _packed(tensors: dict[str, Tensor]) -> bytes:
    placed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(placed, metadata={_DIGEST: _digest(placed)})


def _unpacked(data: bytes, *, what: str, needs: str) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as exc:
        raise ArtifactError(f"the {what} of {len(data)} bytes cannot be read: {exc}") from exc
    if _digest(tensors) != _written_digest(data):
        raise ArtifactError(f"the {what} of {len(data)} bytes are damaged: their digest is another")
    if needs not in tensors:
        raise ArtifactError(f"not {what}: the file holds {', '.join(sorted(tensors)) or 'nothing'}")
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """A SHA-256 over names, dtypes, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _written_digest(data: bytes) -> str | None:
    """The one in the header of *data*, which could be read; None if it has none."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    found = json.loads(data[_LENGTH_BYTES:end]).get("__metadata__", {}).get(_DIGEST)
    return None if found is None else str(found)
