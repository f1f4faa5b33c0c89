"""Stage 2: the decoder on whole clips; the encoder stays as the pictures left it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from demo_model.drawing import moments_of
from demo_model.scenes import sample
from demo_model.training.stage import Schedule, Trainer, prepare
from demo_model.training.vae_model import (
    TIME_STRIDE,
    decode_unclamped,
    draw_all,
    encode_pictures,
    kernels_of,
    loss_of,
    weights_of,
)

SCHEDULE = Schedule(steps=1500, rate=1e-3, level=0.3)
SHAPES = ((48, 9, 10), (64, 9, 6), (64, 17, 3), (96, 9, 3), (128, 5, 3))
"""Side in pixels, frames, clips a step."""
SHARES = (0.3, 0.35, 0.1, 0.15, 0.1)
NOISE = 0.08
"""Deviation of what is added to latents at most, over their own: a denoiser is not exact."""
SEED = 2


def train(run: Path) -> None:
    """Leaves ``vae`` in *run*."""
    device = prepare(SEED)
    vae = AutoencoderKLWan.from_pretrained(run / "vae_pictures").to(device)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    named = [(name, one) for name, one in vae.named_parameters() if one.requires_grad]
    trainer = Trainer(
        schedule=SCHEDULE,
        parameters=[one for _, one in named],
        matrices=kernels_of(named),
        average=0.99,
        file=run / "films.pt",
    )
    deviation = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1).to(device)
    while not trainer.is_done:
        dice = np.random.default_rng((SEED, trainer.step))
        torch.manual_seed(SEED * 1_000_003 + trainer.step)
        side, frames, count = SHAPES[int(dice.choice(len(SHAPES), p=SHARES))]
        scenes = [sample(dice, held_out=False) for _ in range(count)]
        drawn = draw_all(scenes, dice, height=side, width=side, moments=moments_of(frames))
        clips, mask = (one.to(device) for one in drawn)
        latents = encode_pictures(vae, clips[:, :, ::TIME_STRIDE])
        strength = NOISE * torch.rand(count, 1, 1, 1, 1).to(device)
        latents = latents + strength * deviation * torch.randn_like(latents)
        made = decode_unclamped(vae, latents)
        loss = loss_of(made, clips, weights_of(mask))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        trainer.take(error=loss.item(), off=(made - clips).abs().mean().item())
    trainer.swap()
    vae.cpu().save_pretrained(run / "vae")
