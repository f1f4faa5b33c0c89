"""Wan pipelines with random weights: of the published sizes, and one for two processor cores.

``build``: the published sizes, on the device itself, for ``gpu.py``.

A step takes what it takes whatever the weights are. Sizes: Hugging Face's ``config.json`` files of
``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``, ``-14B-Diffusers`` and ``google/umt5-xxl``; the defaults of
``AutoencoderKLWan`` are Wan 2.1's. The text encoder is a single layer unless the real one is asked
for: it has no part in a step, and 11 GB of weights.

``build_wide``: what ``live_policies.py`` denoises; ``python benchmarks/random_wan.py FOLDER``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from ddit_batch.job import Shape
from ddit_batch.model_config import Dtype, ModelConfig, known_models
from ddit_batch.phases.models import tiny

TEXT_DIM = 4096
XXL = {"vocab_size": 256384, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
SHALLOW = {"vocab_size": 320, "d_kv": 64, "d_ff": 256, "num_layers": 1, "num_heads": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One of the models that are measured."""

    name: str
    """As ``--models`` calls it."""
    config: str
    """The shipped model config that it is measured for."""
    layers: int
    ffn_dim: int
    head_dim: int = 128
    shapes: tuple[tuple[str, Shape], ...] = (
        ("480p", Shape(480, 832, 81)),
        ("720p", Shape(720, 1280, 81)),
    )
    """By the name by which ``--sizes`` calls each."""

    def model(self, folder: Path) -> ModelConfig:
        """The model config, with the weights in *folder*."""
        return known_models()[self.config].model_copy(update={"source": str(folder)})


SIZES = {
    size.name: size
    for size in (
        Size(name="1.3b", config="wan2.1-t2v-1.3b", layers=30, ffn_dim=8960),
        Size(name="14b", config="wan2.1-t2v-14b", layers=40, ffn_dim=13824),
    )
}
TINY = Size(
    name="tiny",
    config="tiny-wan",
    layers=2,
    head_dim=12,
    ffn_dim=192,
    shapes=(("small", Shape(32, 32, 5)), ("large", Shape(32, 48, 5))),
)
"""To try the measuring itself where there is no GPU."""


def build(folder: Path, size: Size, *, device: torch.device, whole_text_encoder: bool) -> None:
    """Write the pipeline to *folder*; 28 GB for the 14B model, and 11 for its text encoder."""
    if size is TINY:
        tiny.build(folder)
        return
    config = size.model(folder)
    text = UMT5Config(
        d_model=TEXT_DIM, feed_forward_proj="gated-gelu", **(XXL if whole_text_encoder else SHALLOW)
    )
    WanPipeline(
        tokenizer=tiny.make_tokenizer(),
        text_encoder=_drawn(
            lambda: UMT5EncoderModel(text), config.dtypes.text_encoder, device=device
        ),
        transformer=_drawn(
            lambda: WanTransformer3DModel(
                num_attention_heads=config.heads,
                attention_head_dim=size.head_dim,
                ffn_dim=size.ffn_dim,
                num_layers=size.layers,
                text_dim=TEXT_DIM,
            ),
            config.dtypes.transformer,
            device=device,
        ),
        vae=_drawn(AutoencoderKLWan, config.dtypes.vae, device=device),
        scheduler=tiny.make_solver("unipc"),
    ).save_pretrained(folder)


def build_wide(folder: Path) -> None:
    """Write a pipeline whose work is nearly all denoising, as with real models: 1,024 wide.

    A token is one latent, not four, and the VAE has a single block at each resolution: decoding
    takes 1 to 2 % of the cores, where it would take 8 % with the tiny model's. The 14B model on
    an H800 decodes for 0.3 % of its time (``configs/profiles/wan2.1-14b-h800.yaml``).
    """
    tokenizer = tiny.make_tokenizer()
    cpu = torch.device("cpu")
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=_drawn(
            lambda: tiny.make_text_encoder(len(tokenizer)), Dtype.FLOAT32, device=cpu
        ),
        transformer=_drawn(
            lambda: WanTransformer3DModel(
                patch_size=(1, 1, 1),
                num_attention_heads=8,
                attention_head_dim=128,
                ffn_dim=4096,
                num_layers=2,
                text_dim=tiny.TEXT_DIM,
            ),
            Dtype.FLOAT32,
            device=cpu,
        ),
        vae=_drawn(
            lambda: AutoencoderKLWan(
                base_dim=4,
                z_dim=tiny.LATENT_CHANNELS,
                dim_mult=[1, 1, 1, 1],
                num_res_blocks=0,
            ),
            Dtype.FLOAT32,
            device=cpu,
        ),
        scheduler=tiny.make_solver("unipc"),
    ).save_pretrained(folder)


def _drawn(make: Callable[[], Any], dtype: str, *, device: torch.device) -> Any:
    """The module that *make* makes, on *device*, with weights drawn anew: numbers stay finite.

    On the device from the start: a processor takes far longer to draw 14 billion numbers.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):
            module = make()
    finally:
        torch.set_default_dtype(usual)
    tiny.draw_weights(module, torch.Generator(device).manual_seed(0))
    return module.eval()


if __name__ == "__main__":
    build_wide(Path(sys.argv[1]))
