"""The nouns of the phases, and what a family of models must offer.

A family is split as the phases are: a worker that only encodes never loads the transformer. What
diffusers calls a scheduler is a *solver* here. Knows no particular model: see ``wan.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddit_batch.job import Shape
from ddit_batch.model_config import ModelConfig
from ddit_batch.request import Request

if TYPE_CHECKING:
    from ddit_batch.phases.checkpoint import Checkpoint
    from ddit_batch.phases.sequence_parallel.group import SPGroup

Frames = NDArray[np.uint8]
"""A video in memory: (F, H, W, 3), RGB, 0 ... 255."""


class Solver(Protocol):
    """What we use of a diffusers scheduler. It keeps a history: one object per request."""

    config: Mapping[str, object]
    timesteps: Tensor
    """(steps,), on the device of the latents."""

    def set_timesteps(self, num_inference_steps: int, *, device: torch.device) -> None:
        """Prepare for a run of so many steps."""

    def set_begin_index(self, begin_index: int) -> None:
        """Say that the run begins at this step, which saves a look-up on the device."""

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, *, return_dict: bool
    ) -> tuple[Tensor, ...]:
        """The less noisy sample, first of the tuple. Advances the history in place."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embeddings:
    """What the text encoder says of one request. Shared between requests: never written to."""

    prompt: Tensor
    """(1, max_sequence_length, text dim) in the text encoder's dtype."""
    negative: Tensor | None
    """Likewise for the negative prompt; None without guidance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenoisingState:
    """One request between two steps: all that the loop holds.

    ``solver`` moves on in place with each step, so of the states of one request only the newest may
    be stepped or checkpointed. A step that raises inside the model has not touched the solver: its
    state stays good.
    """

    latents: Tensor
    """(1, C, F', H/8, W/8) on the denoiser's device. float32 to begin with; some solvers (flow
    Euler) go on in the transformer's dtype, as diffusers does."""
    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    solver: Solver
    embeddings: Embeddings
    """On the denoiser's device, in the transformer's dtype."""
    guidance_scale: float
    shape: Shape
    digest: str
    """``request_digest``: a checkpoint continues only the request that it was taken from."""

    @property
    def is_done(self) -> bool:
        """No step is left: the latents are the output of the phase."""
        return self.step >= self.steps


class Encoder(Protocol):
    """The encode phase of one loaded model."""

    def encode(self, request: Request) -> Embeddings:
        """The embeddings of *request*'s texts, on the encoder's device."""


class Denoiser(Protocol):
    """The DiT phase of one loaded model."""

    def start(self, request: Request, embeddings: Embeddings) -> DenoisingState:
        """Noise from the request's seed, before the first step.

        Raises:
            ArtifactError: The embeddings do not fit the request.
        """

    def resume(
        self, request: Request, embeddings: Embeddings, checkpoint: Checkpoint
    ) -> DenoisingState:
        """The state that *checkpoint* was taken from, on this denoiser's device.

        Raises:
            ArtifactError: It was taken from another request or solver.
        """

    def new_solver(self, steps: int) -> Solver:
        """A solver before the first of *steps* steps, on this denoiser's device."""

    def bind(self, group: SPGroup) -> None:
        """From the next step on take every step together with the others of *group*.

        They take the same steps of the same state, each in its process. A denoiser begins alone.
        """

    def step(self, state: DenoisingState) -> DenoisingState:
        """One step on; *state* itself must not be used again.

        Raises:
            GroupBroken: A member of the group died or hung. *state* is good, and can be stepped
                again in another group.
            PhaseError: So many workers cannot share such a step; the message says why.
        """


class Decoder(Protocol):
    """The VAE phase of one loaded model."""

    def decode(self, latents: Tensor) -> Frames:
        """The frames of denoised latents (1, C, F', H/8, W/8), which may be on any device."""


class ModelFamily(Protocol):
    """What a module such as ``wan`` offers. Each loader reads the weights of its own part only.

    *source* is a folder in diffusers' format or a hub id. Every loader raises ConfigError when it
    cannot be loaded and OutOfMemory when the part does not fit on *device*.
    """

    def load_encoder(
        self, config: ModelConfig, source: str | Path, device: torch.device
    ) -> Encoder:
        """Tokenizer and text encoder."""

    def load_denoiser(
        self, config: ModelConfig, source: str | Path, device: torch.device
    ) -> Denoiser:
        """Transformer and solver."""

    def load_decoder(
        self, config: ModelConfig, source: str | Path, device: torch.device
    ) -> Decoder:
        """The VAE."""


def uses_guidance(request: Request) -> bool:
    """Whether a step of *request* asks the transformer twice: with the prompt and without."""
    return request.guidance_scale > 1


def request_digest(request: Request) -> str:
    """A SHA-256 over what the latents of *request* depend on, as 64 hex digits."""
    fields = request.to_json()
    for name in ("custom_id", "line", "fps", "priority", "metadata"):
        del fields[name]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
