"""Stage 5: the diffusion transformer, by flow matching on the latents.

A stock ``WanTransformer3DModel``; a token is one latent. With two processes each has half of a
step's clips and the gradients are averaged: on two cores nearly twice as many clips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from diffusers import WanTransformer3DModel
from torch import Tensor
from torch._C._distributed_c10d import FileStore
from torch.multiprocessing.spawn import spawn
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from demo_model.captions import caption
from demo_model.training import text
from demo_model.training.latents import BUCKETS, Bucket, from_numbers
from demo_model.training.stage import Schedule, Trainer, prepare
from demo_model.training.vae_model import CHANNELS

SCHEDULE = Schedule(steps=7000, rate=2e-3, warm_up=100, level=0.5)
HEADS, HEAD_DIM, LAYERS = 4, 32, 4
NO_PROMPT = 0.1
"""So often a clip is learned without its caption, for guidance."""
SEED = 5
_AVERAGE = 0.999


def train(run: Path) -> None:
    """Leaves ``transformer`` in *run*."""
    count = 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
    if count == 1:
        _work(0, 1, run)
    else:
        spawn(_work, args=(count, run), nprocs=count)  # type: ignore[no-untyped-call]  # torch's own


def new_transformer() -> Any:
    """Random weights; at first it says that nothing moves."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=text.DIM,
        freq_dim=128,
        ffn_dim=4 * HEADS * HEAD_DIM,
        num_layers=LAYERS,
        rope_max_seq_len=128,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    return transformer


def flow_loss(transformer: Any, latents: Tensor, sigma: Tensor, embeddings: Tensor) -> Tensor:
    """Squared error of the velocity for each clip (N,), at noise *sigma* (N,)."""
    noise = torch.randn_like(latents)
    part = sigma.view(-1, 1, 1, 1, 1)
    noisy = torch.lerp(latents, noise, part)
    said = transformer(noisy, sigma * 1000, embeddings, return_dict=False)[0]
    errors: Tensor = ((said - (noise - latents)) ** 2).mean((1, 2, 3, 4))
    return errors


def _work(rank: int, count: int, run: Path) -> None:
    device = prepare(SEED)
    with _together(rank, count, run):
        transformer = new_transformer().to(device)
        transformer.rope.freqs_cos = transformer.rope.freqs_cos.float()
        transformer.rope.freqs_sin = transformer.rope.freqs_sin.float()
        named = list(transformer.named_parameters())
        trainer = Trainer(
            schedule=SCHEDULE,
            parameters=[one for _, one in named],
            matrices=[one for name, one in named if one.ndim == 2 and "blocks" in name],
            average=_AVERAGE,
            file=run / "denoiser.pt",
            is_chief=rank == 0,
        )
        words = _Words(run)
        stock = [torch.load(run / "latents" / f"{bucket.name}.pt") for bucket in BUCKETS]
        while not trainer.is_done:
            number = int(
                np.random.default_rng((SEED, trainer.step)).choice(
                    len(BUCKETS), p=[bucket.share for bucket in BUCKETS]
                )
            )
            dice = np.random.default_rng((SEED, trainer.step, rank))
            torch.manual_seed((SEED * 1_000_003 + trainer.step) * 8 + rank)
            loss = _learn(transformer, words, BUCKETS[number], stock[number], dice)
            if count > 1:
                _average_gradients(trainer.parameters, count)
            trainer.take(**{BUCKETS[number].name: loss})
        if rank == 0:
            trainer.swap()
            transformer.cpu().save_pretrained(run / "transformer")
            print(json.dumps({"step": trainer.step, "done": True}), flush=True)


class _Words:
    """Captions as embeddings, by the encoder of stage 3."""

    def __init__(self, run: Path) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(run / "tokenizer")
        self._encoder = UMT5EncoderModel.from_pretrained(run / "text_encoder").eval()

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> Tensor:
        """(N, LENGTH, DIM)."""
        tokens = text.tokenize(self._tokenizer, captions, length=None)
        found = text.embed(self._encoder, tokens)
        return torch.nn.functional.pad(found, (0, 0, 0, text.LENGTH - found.shape[1]))


def _learn(
    transformer: Any, words: _Words, bucket: Bucket, stock: Any, dice: np.random.Generator
) -> float:
    picked = torch.from_numpy(dice.integers(len(stock["latents"]), size=bucket.batch))
    latents = stock["latents"][picked].float().to(transformer.device)
    scenes = [from_numbers(row) for row in stock["scenes"][picked].tolist()]
    captions = ["" if dice.random() < NO_PROMPT else caption(scene, dice) for scene in scenes]
    sigma, embeddings = _noise(bucket, dice).to(latents), words(captions).to(latents)
    loss = flow_loss(transformer, latents, sigma, embeddings).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    return loss.item()


def _noise(bucket: Bucket, dice: np.random.Generator) -> Tensor:
    """How noisy each clip is, 0 to 1: mostly where form is decided; larger clips need more."""
    normal = dice.normal(0.5, 1.2, bucket.batch)
    even = dice.uniform(-4, 6, bucket.batch)
    sigma = 1 / (1 + np.exp(-np.where(dice.random(bucket.batch) < 0.75, normal, even)))
    shift = (bucket.tokens / BUCKETS[0].tokens) ** 0.5
    sigma = shift * sigma / (1 + (shift - 1) * sigma)
    return torch.from_numpy(sigma).float().clamp(1e-3, 1.0)


def _average_gradients(parameters: Any, count: int) -> None:
    present = [one for one in parameters if one.grad is not None]
    flat = torch.cat([one.grad.flatten() for one in present])
    dist.all_reduce(flat)
    flat /= count
    at = 0
    for one in present:
        one.grad.copy_(flat[at : at + one.numel()].view_as(one))
        at += one.numel()


@contextmanager
def _together(rank: int, count: int, run: Path) -> Iterator[None]:
    if count == 1:
        yield
        return
    store = FileStore(str(run / f"denoiser.{os.getppid()}.meeting"), count)  # torch deletes it
    dist.init_process_group("gloo", rank=rank, world_size=count, store=store)
    try:
        yield
    finally:
        dist.destroy_process_group()
