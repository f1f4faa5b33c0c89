"""The Wan 2.1 family (text to video) through diffusers, one class for each phase.

Step by step this gives the bits of one call of diffusers' ``WanPipeline`` with a CPU generator of
the request's seed. The order of operations is therefore the pipeline's wherever rounding could
tell. Not here: Wan 2.2 with its two transformers, image to video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.video_processor import VideoProcessor
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from torch import Tensor

from ddit_batch.errors import ConfigError
from ddit_batch.model_config import Dtype, ModelConfig, VaeStrides
from ddit_batch.phases.device import inference
from ddit_batch.phases.models.base import Embeddings, Frames, uses_guidance
from ddit_batch.phases.models.solver import load_solver
from ddit_batch.phases.models.wan_denoiser import WanDenoiser, transformer_class
from ddit_batch.request import Request

_LOAD_ERRORS = (
    OSError,  # no such file, repository or network
    ValueError,  # a config that does not fit the weights
    KeyError,
    SafetensorError,
    HfHubHTTPError,
    NotImplementedError,  # weights missing from the file: nothing to move to the device
)
_REMEMBERED_TEXTS = 16
"""Encoded texts kept by an encoder: negative prompts repeat. 4 MB each for Wan 2.1 in bfloat16."""


class WanEncoder:
    """Text to embeddings by UMT5."""

    def __init__(self, pipeline: Any, *, max_sequence_length: int, device: torch.device) -> None:
        self._pipeline = pipeline
        self._max_sequence_length = max_sequence_length
        self._device = device
        self._encode_text = lru_cache(maxsize=_REMEMBERED_TEXTS)(self._encode_text_anew)

    def encode(self, request: Request) -> Embeddings:
        """The embeddings of *request*, on the encoder's device, in the text encoder's dtype."""
        negative = self._encode_text(request.negative_prompt) if uses_guidance(request) else None
        return Embeddings(prompt=self._encode_text(request.prompt), negative=negative)

    def _encode_text_anew(self, text: str) -> Tensor:
        """(1, max_sequence_length, text dim), zero beyond the end of the text."""
        prompt_embeds: Tensor = self._pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=self._max_sequence_length,
            device=self._device,
        )[0]
        return prompt_embeds


class WanDecoder:
    """Latents to frames by Wan's causal video VAE."""

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._processor = VideoProcessor(vae_scale_factor=vae.config.scale_factor_spatial)

    def decode(self, latents: Tensor) -> Frames:
        """(F, H, W, 3) uint8 of latents (1, C, F', H/8, W/8), which may be on any device."""
        vae = self._vae
        latents = latents.to(vae.device, vae.dtype)
        mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1).to(latents)
        # Divided by the inverse, where a product would round otherwise than the pipeline does.
        inverse_std = (1.0 / torch.tensor(vae.config.latents_std)).view(1, -1, 1, 1, 1).to(latents)
        video = vae.decode(latents / inverse_std + mean, return_dict=False)[0]
        pixels = self._processor.postprocess_video(video, output_type="np")[0]
        frames: Frames = (pixels * 255).round().astype(np.uint8)
        return frames


def load_encoder(config: ModelConfig, source: str | Path, device: torch.device) -> WanEncoder:
    """Tokenizer and text encoder only.

    Raises:
        ConfigError: They cannot be loaded.
        OutOfMemory: They do not fit on *device*.
    """
    with _loading(config, source, "text encoder"):
        _read_index(source, config.revision)
        pipeline = WanPipeline.from_pretrained(
            source,
            revision=config.revision,
            use_safetensors=True,
            dtype=_torch_dtype(config.dtypes.text_encoder),
            **dict.fromkeys(("transformer", "transformer_2", "vae", "scheduler")),
        ).to(device)
    return WanEncoder(pipeline, max_sequence_length=config.max_sequence_length, device=device)


def load_denoiser(config: ModelConfig, source: str | Path, device: torch.device) -> WanDenoiser:
    """Transformer and solver only.

    Raises:
        ConfigError: They cannot be loaded, or the config's heads are not the transformer's.
        OutOfMemory: They do not fit on *device*.
    """
    with _loading(config, source, "transformer"):
        index = _read_index(source, config.revision)
        solver = load_solver(_class_name(index, "scheduler"), source, config.revision)
        loaded_as = transformer_class(config.parallelism.backend)
        transformer = loaded_as.from_pretrained(
            source,
            subfolder="transformer",
            revision=config.revision,
            use_safetensors=True,
            dtype=_torch_dtype(config.dtypes.transformer),
        ).to(device)
    if (heads := transformer.config.num_attention_heads) != config.heads:
        raise ConfigError(
            f"model {config.name}: heads is {config.heads}, but the transformer in {source} has "
            f"{heads} attention heads: correct the model config"
        )
    return WanDenoiser(
        transformer,
        solver,
        strides=config.vae_strides,
        device=device,
        parallelism=config.parallelism,
    )


def load_decoder(config: ModelConfig, source: str | Path, device: torch.device) -> WanDecoder:
    """The VAE only.

    Raises:
        ConfigError: It cannot be loaded, or the config's strides are not the VAE's.
        OutOfMemory: It does not fit on *device*.
    """
    with _loading(config, source, "VAE"):
        _read_index(source, config.revision)
        vae = AutoencoderKLWan.from_pretrained(
            source,
            subfolder="vae",
            revision=config.revision,
            use_safetensors=True,
            dtype=_torch_dtype(config.dtypes.vae),
        ).to(device)
    found = VaeStrides(
        space_px=vae.config.scale_factor_spatial, time_frames=vae.config.scale_factor_temporal
    )
    if found != config.vae_strides:
        raise ConfigError(
            f"model {config.name}: vae_strides are {config.vae_strides}, but those of the VAE in "
            f"{source} are {found}: correct the model config"
        )
    return WanDecoder(vae)


@contextmanager
def _loading(config: ModelConfig, source: str | Path, part: str) -> Iterator[None]:
    """Turn what the libraries raise while they load *part* into our errors."""
    try:
        with inference(f"the {part} of model {config.name}"):
            yield
    except _LOAD_ERRORS as exc:
        raise ConfigError(
            f"model {config.name}: the {part} cannot be loaded from {source}: give a complete "
            "folder in diffusers' format, or the id of a hub repository that is downloaded already "
            f"or can be reached from here ({exc})"
        ) from exc


def _read_index(source: str | Path, revision: str | None) -> Mapping[str, Any]:
    """The pipeline's ``model_index.json``.

    Raises:
        ConfigError: The pipeline is not of this family.
    """
    index: Mapping[str, Any] = WanPipeline.load_config(source, revision=revision)
    if (name := index.get("_class_name")) != "WanPipeline":
        raise ConfigError(f"{source} holds a {name}: only WanPipeline (Wan 2.1) is supported")
    if _class_name(index, "transformer_2") or index.get("boundary_ratio") is not None:
        raise ConfigError(
            f"{source} has two transformers (Wan 2.2): only Wan 2.1 with one is supported"
        )
    if index.get("expand_timesteps"):
        raise ConfigError(
            f"{source} has a timestep for each token (Wan 2.2 TI2V): only Wan 2.1 is supported"
        )
    return index


def _class_name(index: Mapping[str, Any], component: str) -> str:
    """The class that the index names for *component*; empty if it has none."""
    return (index.get(component) or (None, None))[1] or ""


def _torch_dtype(dtype: Dtype) -> torch.dtype:
    found = getattr(torch, dtype.value)
    assert isinstance(found, torch.dtype)
    return found
