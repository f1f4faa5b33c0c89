"""The DiT phase of the Wan 2.1 family: one worker's part of a step, alone or in a group.

Alone this gives the bits of diffusers' ``WanPipeline``. Every member of a group holds the whole
state: only inside the transformer a rank has its piece of the tokens, so that after each step each
member could go on alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from torch import Tensor

from ddit_batch.errors import ArtifactError, PhaseError
from ddit_batch.model_config import Backend, Parallelism, VaeStrides
from ddit_batch.phases.checkpoint import Checkpoint, restore
from ddit_batch.phases.models.base import (
    DenoisingState,
    Embeddings,
    Solver,
    request_digest,
    uses_guidance,
)
from ddit_batch.phases.models.solver import fresh
from ddit_batch.phases.sequence_parallel.backend import sequence_parallel
from ddit_batch.phases.sequence_parallel.group import SPGroup, lone_group
from ddit_batch.request import Request


def transformer_class(backend: Backend) -> Any:
    """The class of the transformer to load for *backend*."""
    match backend:
        case Backend.XFUSER:
            from ddit_batch.phases.sequence_parallel.xfuser_import import (  # noqa: PLC0415 -- only who denoises pays for xfuser's import
                import_wan,
            )

            return import_wan().xFuserWanTransformer3DWrapper
        case Backend.DIFFUSERS:
            return WanTransformer3DModel


class WanDenoiser:
    """Noise to latents by the Wan transformer, under a solver."""

    def __init__(
        self,
        transformer: Any,
        solver: Solver,
        *,
        strides: VaeStrides,
        device: torch.device,
        parallelism: Parallelism,
    ) -> None:
        self.transformer = transformer
        """Of the class that the backend of *parallelism* needs."""
        self._config = transformer.config
        self._solver = solver
        self._device = device
        self._dtype: torch.dtype = transformer.dtype
        self._parallelism = parallelism
        self._sequence = sequence_parallel(parallelism.backend, transformer)
        self._pipeline = WanPipeline(
            **dict.fromkeys(("tokenizer", "text_encoder", "vae", "scheduler")),
            transformer=transformer,
        )
        # Without a VAE the pipeline takes Wan 2.1's strides, which are not every VAE's.
        self._pipeline.vae_scale_factor_spatial = strides.space_px
        self._pipeline.vae_scale_factor_temporal = strides.time_frames
        self._group = lone_group("alone")

    def start(self, request: Request, embeddings: Embeddings) -> DenoisingState:
        """Noise drawn on the CPU, so that a seed means the same video on every device.

        Raises:
            ArtifactError: Guidance is asked for and the embeddings have no negative prompt.
        """
        return replace(self._blank(request, embeddings), latents=self._noise(request))

    def resume(
        self, request: Request, embeddings: Embeddings, checkpoint: Checkpoint
    ) -> DenoisingState:
        """The state that *checkpoint* was taken from, on this denoiser's device.

        Raises:
            ArtifactError: It was taken from another request or solver.
        """
        return restore(checkpoint, self._blank(request, embeddings))

    def new_solver(self, steps: int) -> Solver:
        """A solver before the first of *steps* steps, on this denoiser's device."""
        return fresh(self._solver, steps=steps, device=self._device)

    def bind(self, group: SPGroup) -> None:
        """From the next step on take every step together with the others of *group*."""
        self._group = group

    def step(self, state: DenoisingState) -> DenoisingState:
        """One step on. An error in the transformer or the group leaves *state* as it was.

        Raises:
            GroupBroken: A member of the group died or hung.
            PhaseError: So many workers cannot share such a step; the message says why.
        """
        self._require_fit(state)
        timestep = state.solver.timesteps[state.step]
        with self._group.breaking(f"in step {state.step + 1}"):
            noise = self._predict(state, timestep)
        latents = state.solver.step(noise, timestep, state.latents, return_dict=False)[0]
        return replace(state, latents=latents, step=state.step + 1)

    def _predict(self, state: DenoisingState, timestep: Tensor) -> Tensor:
        """The noise in the latents, guided if there is a negative prompt; the latents' shape."""
        prompt, negative = state.embeddings.prompt, state.embeddings.negative
        if negative is None:
            return self._ask(state, timestep, prompt)
        if self._group.half is not None:
            return self._predict_by_halves(state, timestep, prompt, negative)
        with_prompt = self._ask(state, timestep, prompt)
        without = self._ask(state, timestep, negative)
        return without + state.guidance_scale * (with_prompt - without)

    def _predict_by_halves(
        self, state: DenoisingState, timestep: Tensor, prompt: Tensor, negative: Tensor
    ) -> Tensor:
        """The same, when half of the group asks with the prompt and the other half without."""
        mine = self._ask(state, timestep, prompt if self._group.is_first_half else negative)
        with_prompt, without = self._group.exchange_halves(mine)
        return without + state.guidance_scale * (with_prompt - without)

    def _ask(self, state: DenoisingState, timestep: Tensor, text: Tensor) -> Tensor:
        mesh = self._group.mesh(is_guided=state.embeddings.negative is not None)
        self._sequence.split(mesh, tokens=self._tokens(state))
        noise: Tensor = self.transformer(
            hidden_states=state.latents.to(self._dtype),
            timestep=timestep.expand(1),
            encoder_hidden_states=text,
            return_dict=False,
        )[0]
        return noise

    def _require_fit(self, state: DenoisingState) -> None:
        """Refuse, before anything is sent, what the libraries would assert or get wrong.

        Raises:
            PhaseError: The group is too large, or the wrong size, for this request.
        """
        refusal = self._parallelism.refusal(
            dop=self._group.size,
            heads=self._config.num_attention_heads,
            tokens=self._tokens(state),
            is_guided=state.embeddings.negative is not None,
        )
        if refusal is not None:
            raise PhaseError(
                f"{self._group.size} workers cannot share a step of {state.shape}: {refusal}: "
                "take a dop that divides them"
            )

    def _tokens(self, state: DenoisingState) -> int:
        """What the transformer makes of the latents: one token for each patch."""
        patches = zip(state.latents.shape[2:], self._config.patch_size, strict=True)
        return math.prod(size // patch for size, patch in patches)

    def _blank(self, request: Request, embeddings: Embeddings) -> DenoisingState:
        """*request* before its first step, with no numbers in its latents yet.

        Raises:
            ArtifactError: Guidance is asked for and the embeddings have no negative prompt.
        """
        if uses_guidance(request) and embeddings.negative is None:
            raise ArtifactError(
                f"guidance_scale {request.guidance_scale} needs an encoded negative prompt, and "
                "the embeddings have none: encode the request again"
            )
        steps = request.num_inference_steps
        return DenoisingState(
            latents=torch.empty(self._latents_shape(request), device=self._device),
            step=0,
            steps=steps,
            solver=self.new_solver(steps),
            embeddings=self._placed(embeddings, guided=uses_guidance(request)),
            guidance_scale=request.guidance_scale,
            shape=request.shape,
            digest=request_digest(request),
        )

    def _noise(self, request: Request) -> Tensor:
        """(1, C, F', H/stride, W/stride) float32 on the denoiser's device."""
        latents: Tensor = self._pipeline.prepare_latents(
            1,
            self._config.in_channels,
            request.height,
            request.width,
            request.num_frames,
            torch.float32,
            self._device,
            torch.Generator("cpu").manual_seed(request.seed),
        )
        return latents

    def _latents_shape(self, request: Request) -> tuple[int, ...]:
        """That of ``_noise``."""
        in_time = self._pipeline.vae_scale_factor_temporal
        in_space = self._pipeline.vae_scale_factor_spatial
        return (
            1,
            self._config.in_channels,
            (request.num_frames - 1) // in_time + 1,
            request.height // in_space,
            request.width // in_space,
        )

    def _placed(self, embeddings: Embeddings, *, guided: bool) -> Embeddings:
        negative = embeddings.negative if guided else None
        return Embeddings(
            prompt=embeddings.prompt.to(self._device, self._dtype),
            negative=None if negative is None else negative.to(self._device, self._dtype),
        )
