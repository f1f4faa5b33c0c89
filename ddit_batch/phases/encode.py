"""The encode phase: text to embeddings, and the key under which they can be used again."""

from __future__ import annotations

import hashlib
import json

from ddit_batch.model_config import ModelConfig
from ddit_batch.phases.device import inference
from ddit_batch.phases.models.base import Embeddings, Encoder, uses_guidance
from ddit_batch.request import Request


def encode(encoder: Encoder, request: Request) -> Embeddings:
    """The embeddings of *request*, on the encoder's device.

    Raises:
        OutOfMemory: The texts do not fit on the device.
    """
    with inference(f"encoding a prompt of {len(request.prompt)} characters"):
        return encoder.encode(request)


def embeddings_digest(config: ModelConfig, request: Request) -> str:
    """A SHA-256, as 64 hex digits, over all that the embeddings of *request* depend on.

    Requests that differ only in seed, size or steps share it. Without guidance the negative prompt
    has no say.
    """
    negative = request.negative_prompt if uses_guidance(request) else None
    content = [
        config.name,
        config.source,
        config.revision,
        config.dtypes.text_encoder,
        config.max_sequence_length,
        request.prompt,
        negative,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
