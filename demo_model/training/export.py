"""Stage 6: one folder in diffusers' format, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

SHIFT = 3.0
_PLAIN_TOKENIZER = "PreTrainedTokenizerFast"
"""Under this name every release of transformers finds the tokenizer."""


def train(run: Path) -> None:
    """Leaves ``shapes`` in *run*."""
    folder = run / "shapes"
    pipeline = WanPipeline(
        tokenizer=PreTrainedTokenizerFast.from_pretrained(run / "tokenizer"),
        text_encoder=UMT5EncoderModel.from_pretrained(run / "text_encoder"),
        vae=AutoencoderKLWan.from_pretrained(run / "vae"),
        transformer=WanTransformer3DModel.from_pretrained(run / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder)
    _forget_folders(folder)
    for file in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        described = json.loads(file.read_text("utf-8"))
        if "tokenizer" in described:
            described["tokenizer"][1] = _PLAIN_TOKENIZER
        if "tokenizer_class" in described:
            described["tokenizer_class"] = _PLAIN_TOKENIZER
        file.write_text(json.dumps(described, indent=2) + "\n", "utf-8")


def _forget_folders(folder: Path) -> None:
    """Configs are not to say from which folder of the trainer's machine a part was loaded."""
    for file in folder.rglob("config.json"):
        described = json.loads(file.read_text("utf-8"))
        if described.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(described, indent=2) + "\n", "utf-8")
