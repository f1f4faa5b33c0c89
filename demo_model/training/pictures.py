"""Stage 1: the VAE on single frames. Then its encoder is ready."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from demo_model.scenes import sample
from demo_model.training.stage import Schedule, Trainer, prepare
from demo_model.training.vae_model import (
    FastOnPictures,
    decode_unclamped,
    draw_all,
    encode_pictures,
    freeze_time,
    kernels_of,
    loss_of,
    new_vae,
    weights_of,
    whiten,
)

SCHEDULE = Schedule(steps=4000, rate=1.5e-3)
SIDES = ((48, 32), (64, 20), (96, 9), (128, 5))
"""Side in pixels and pictures a step."""
SHARES = (0.3, 0.4, 0.15, 0.15)
PRIOR = 2e-4
"""Weight of the latents' distance from a normal distribution."""
SEED = 1
_MEASURED = 400


def train(run: Path) -> None:
    """Leaves ``vae_pictures`` in *run*: the encoder frozen, latents' mean and deviation in it."""
    device = prepare(SEED)
    vae = new_vae()
    dice = np.random.default_rng(SEED)
    scenes = [sample(dice, held_out=False) for _ in range(200)]
    whiten(vae, draw_all(scenes, dice, height=64, width=64, moments=torch.zeros(1))[0])
    vae.to(device)
    named = list(vae.named_parameters())
    trainer = Trainer(
        schedule=SCHEDULE,
        parameters=[one for _, one in named],
        matrices=kernels_of(named),
        average=0.995,
        file=run / "pictures.pt",
    )
    while not trainer.is_done:
        dice = np.random.default_rng((SEED, trainer.step))
        torch.manual_seed(SEED * 1_000_003 + trainer.step)
        _learn(vae, trainer, dice)
    trainer.swap()
    vae.cpu()
    freeze_time(vae)
    measure(vae)
    vae.save_pretrained(run / "vae_pictures")


def _learn(vae: AutoencoderKLWan, trainer: Trainer, dice: np.random.Generator) -> None:
    side, count = SIDES[int(dice.choice(len(SIDES), p=SHARES))]
    scenes = [sample(dice, held_out=False) for _ in range(count)]
    moment = torch.tensor([float(dice.random())])
    drawn = draw_all(scenes, dice, height=side, width=side, moments=moment)
    pictures, mask = (one.to(vae.device) for one in drawn)
    with FastOnPictures():
        posterior = vae.encode(pictures).latent_dist
        made = decode_unclamped(vae, posterior.sample())
    error = loss_of(made, pictures, weights_of(mask))
    spread = posterior.mean**2 + posterior.var - 1 - posterior.logvar
    (error + PRIOR * 0.5 * spread.mean()).backward()
    trainer.take(error=error.item(), off=(made - pictures).abs().mean().item())


def measure(vae: AutoencoderKLWan) -> None:
    """Write mean and deviation of each latent channel into the VAE's config."""
    dice = np.random.default_rng((SEED, 0, 1))
    found = []
    for side in (64, 128):
        scenes = [sample(dice, held_out=False) for _ in range(_MEASURED)]
        pictures, _ = draw_all(scenes, dice, height=side, width=side, moments=torch.tensor([0.5]))
        found.append(encode_pictures(vae, pictures).transpose(0, 1).flatten(1))
    latents = torch.cat(found, 1)
    vae.register_to_config(
        latents_mean=[round(x, 5) for x in latents.mean(1).tolist()],
        latents_std=[round(x, 5) for x in latents.std(1).tolist()],
    )
