"""A tiny pipeline in parts, beside diffusers' own whole, for the tests to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline
from torch import Tensor

from ddit_batch.model_config import ModelConfig
from ddit_batch.phases import vae
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.encode import encode
from ddit_batch.phases.models.base import Decoder, Denoiser, DenoisingState, Encoder, Frames
from ddit_batch.phases.models.registry import family_of
from ddit_batch.request import Request

MakeRequest = Callable[..., Request]
"""A small request with some fields changed."""


@dataclass(frozen=True)
class Model:
    """One tiny pipeline in parts, beside diffusers' own whole."""

    encoder: Encoder
    denoiser: Denoiser
    decoder: Decoder
    pipeline: Any
    max_sequence_length: int

    def start(self, request: Request) -> DenoisingState:
        """The state before the first step."""
        return self.denoiser.start(request, encode(self.encoder, request))

    def latents(self, request: Request) -> Tensor:
        """The latents of an undisturbed run."""
        return denoise(self.denoiser, self.start(request), lambda *_: Verdict.CONTINUE)[0].latents

    def frames(self, request: Request) -> Frames:
        """The frames of an undisturbed run."""
        return vae.decode(self.decoder, self.latents(request))

    def whole(self, request: Request, output_type: str) -> Any:
        """What one plain call of ``WanPipeline`` gives: ``latent`` or ``pil``."""
        return self.pipeline(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            max_sequence_length=self.max_sequence_length,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type=output_type,
        ).frames

    def whole_frames(self, request: Request) -> Frames:
        """What one plain call of ``WanPipeline`` shows."""
        return np.stack([np.asarray(image) for image in self.whole(request, "pil")[0]])


def load(config: ModelConfig, folder: Path) -> Model:
    """The pipeline in *folder*, whole and in parts, on the cpu."""
    family, cpu = family_of(config), torch.device("cpu")
    pipeline = WanPipeline.from_pretrained(
        folder,
        dtype={part: getattr(torch, dtype) for part, dtype in config.dtypes.model_dump().items()},
    )
    pipeline.set_progress_bar_config(disable=True)
    return Model(
        encoder=family.load_encoder(config, folder, cpu),
        denoiser=family.load_denoiser(config, folder, cpu),
        decoder=family.load_decoder(config, folder, cpu),
        pipeline=pipeline,
        max_sequence_length=config.max_sequence_length,
    )
