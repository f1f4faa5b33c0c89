"""Stage 4: clips as latents, once, so that the denoiser need not draw and encode at every step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from demo_model.drawing import moments_of
from demo_model.scenes import Background, Change, Color, Form, Scene, Size, sample
from demo_model.training.stage import prepare
from demo_model.training.vae_model import STRIDE, TIME_STRIDE, draw_all, encode_pictures

SEED = 4
_AT_ONCE = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A shape that is trained on; sizes in pixels."""

    side: int
    frames: int
    share: float
    """Of the steps."""
    batch: int
    """Clips a step and process."""
    clips: int
    """Different ones."""

    @property
    def name(self) -> str:
        """Height, width and frames."""
        return f"{self.side}x{self.side}x{self.frames}"

    @property
    def tokens(self) -> int:
        """One for each latent."""
        return (self.side // STRIDE) ** 2 * (1 + (self.frames - 1) // TIME_STRIDE)


BUCKETS = (
    Bucket(side=64, frames=9, share=0.62, batch=24, clips=24_000),
    Bucket(side=64, frames=17, share=0.08, batch=14, clips=1500),
    Bucket(side=128, frames=9, share=0.14, batch=6, clips=2000),
    Bucket(side=128, frames=17, share=0.08, batch=4, clips=800),
    Bucket(side=256, frames=17, share=0.08, batch=1, clips=240),
)


def train(run: Path) -> None:
    """Leaves ``latents/SHAPE.pt`` in *run*, each with latents, scaled, and the scenes."""
    device = prepare(SEED)
    vae = AutoencoderKLWan.from_pretrained(run / "vae_pictures").to(device).eval()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    folder = run / "latents"
    folder.mkdir(exist_ok=True)
    for number, bucket in enumerate(BUCKETS):
        file = folder / f"{bucket.name}.pt"
        if file.is_file():
            continue
        dice = np.random.default_rng((SEED, number))
        moments = moments_of(bucket.frames, every=TIME_STRIDE)
        scenes = [sample(dice, held_out=False) for _ in range(bucket.clips)]
        parts = []
        for first in range(0, len(scenes), _AT_ONCE):
            some = scenes[first : first + _AT_ONCE]
            frames, _ = draw_all(some, dice, height=bucket.side, width=bucket.side, moments=moments)
            found = encode_pictures(vae, frames.to(device)).cpu()
            parts.append(((found - mean) / deviation).half())
        scratch = file.with_suffix(".new")
        torch.save({"latents": torch.cat(parts), "scenes": as_numbers(scenes)}, scratch)
        scratch.rename(file)
        print(bucket.name, len(scenes), flush=True)


_KINDS: tuple[list[str], ...] = (
    list(Color),
    list(Background),
    list(Form),
    list(Size),
    list(Change),
)


def as_numbers(scenes: list[Scene]) -> Tensor:
    """(N, 6) places in the lists of what can be said; -1 for no last colour."""
    rows = []
    for scene in scenes:
        words = (scene.color, scene.background, scene.form, scene.size, scene.change)
        places = [kind.index(word) for kind, word in zip(_KINDS, words, strict=True)]
        rows.append([*places, -1 if scene.into is None else list(Color).index(scene.into)])
    return torch.tensor(rows)


def from_numbers(row: list[int]) -> Scene:
    """The scene of one row."""
    color, background, form, size, change, into = row
    return Scene(
        color=list(Color)[color],
        background=list(Background)[background],
        form=list(Form)[form],
        size=list(Size)[size],
        change=list(Change)[change],
        into=None if into < 0 else list(Color)[into],
    )
