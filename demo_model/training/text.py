"""Stage 3: tokenizer and text encoder, by themselves.

Every token of a caption must tell all that the caption says: a linear reading of each token's
embedding names colour, background, form, size, change and last colour. What the denoiser attends to
is then easy to use, and need not be learned through noise. The readings are thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import UMT5Config, UMT5EncoderModel

from ddit_batch.phases.models import tiny
from demo_model.captions import caption
from demo_model.scenes import Background, Change, Color, Form, Scene, Size, sample
from demo_model.training.stage import Schedule, Trainer, prepare

SCHEDULE = Schedule(steps=1200, rate=2e-3)
DIM = 128
LENGTH = 32
"""Tokens to which prompts are padded or cut."""
BATCH = 64
SEED = 3
_VOCABULARY = 480
_CAPTIONS = 20_000
_EXAM = 2000
_KINDS: tuple[tuple[str, Sequence[str]], ...] = (
    ("color", list(Color)),
    ("background", list(Background)),
    ("form", list(Form)),
    ("size", list(Size)),
    ("change", list(Change)),
    ("into", list(Color)),
)
"""What is read; the last only of those that turn."""


def train(run: Path) -> None:
    """Leaves ``tokenizer``, ``text_encoder`` and ``text.json``, the exam's figures, in *run*."""
    device = prepare(SEED)
    tokenizer = make_tokenizer()
    encoder = make_encoder(len(tokenizer)).to(device)
    readings = torch.nn.ModuleList(torch.nn.Linear(DIM, len(words)) for _, words in _KINDS)
    readings.to(device)
    named = [*encoder.named_parameters(), *readings.named_parameters(prefix="readings")]
    trainer = Trainer(
        schedule=SCHEDULE,
        parameters=[one for _, one in named],
        matrices=[one for name, one in named if _is_matrix(name, one)],
        average=0.995,
        file=run / "text.pt",
    )
    while not trainer.is_done:
        dice = np.random.default_rng((SEED, trainer.step))
        scenes = [sample(dice, held_out=False) for _ in range(BATCH)]
        tokens = tokenize(tokenizer, [caption(scene, dice) for scene in scenes]).to(device)
        loss = _loss(encoder, readings, tokens, scenes)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        trainer.take(loss=loss.item())
    trainer.swap()
    encoder.cpu()
    readings.cpu()
    figures = exam(tokenizer, encoder, readings)
    print(json.dumps(figures), flush=True)
    (run / "text.json").write_text(json.dumps(figures), "utf-8")
    tokenizer.save_pretrained(run / "tokenizer")
    encoder.save_pretrained(run / "text_encoder")


def make_tokenizer() -> Any:
    """A tokenizer of captions."""
    dice = np.random.default_rng((SEED, 0, 0))
    captions = (caption(sample(dice, held_out=False), dice) for _ in range(_CAPTIONS))
    return tiny.make_tokenizer(captions, vocabulary=_VOCABULARY, is_lower_case=True)


def make_encoder(vocabulary: int) -> Any:
    """A stock UMT5 encoder."""
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=DIM,
            d_kv=32,
            d_ff=256,
            num_layers=3,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )
    torch.nn.init.normal_(encoder.shared.weight, std=0.5)
    for name, parameter in encoder.named_parameters():
        if "relative_attention_bias" in name:  # "red to blue" is not "blue to red"
            torch.nn.init.normal_(parameter, std=1.0)
    return encoder


def tokenize(tokenizer: Any, captions: Sequence[str], *, length: int | None = None) -> Any:
    """Ids and mask (N, L), as long as the longest, or *length*."""
    return tokenizer(
        list(captions),
        padding="max_length" if length else "longest",
        truncation=True,
        max_length=length or LENGTH,
        return_tensors="pt",
    )


def embed(encoder: Any, tokens: Any) -> Tensor:
    """Embeddings (N, L, DIM), zero beyond the end, as the pipeline makes them."""
    hidden: Tensor = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    embeddings: Tensor = hidden * tokens.attention_mask[..., None]
    return embeddings


@torch.no_grad()
def exam(tokenizer: Any, encoder: Any, readings: Any) -> dict[str, float]:
    """How often the mean reading of a caption of a held-out scene is right, by what is read."""
    dice = np.random.default_rng((SEED, 0, 2))
    scenes = [sample(dice, held_out=True) for _ in range(_EXAM)]
    tokens = tokenize(tokenizer, [caption(scene, dice) for scene in scenes])
    embeddings = embed(encoder, tokens)
    is_real = tokens.attention_mask[..., None]
    figures = {}
    for reading, (kind, words) in zip(readings, _KINDS, strict=True):
        said = ((reading(embeddings) * is_real).sum(1)).argmax(1)
        pairs = zip(said.tolist(), (getattr(scene, kind) for scene in scenes), strict=True)
        right = [words[number] == word for number, word in pairs if word is not None]
        figures[kind] = sum(right) / len(right)
    return figures


def _loss(encoder: Any, readings: Any, tokens: Any, scenes: Sequence[Scene]) -> Tensor:
    embeddings = embed(encoder, tokens)
    length = embeddings.shape[1]
    total = embeddings.new_zeros(())
    for reading, (kind, words) in zip(readings, _KINDS, strict=True):
        numbers = [_number(words, getattr(scene, kind)) for scene in scenes]
        wanted = torch.tensor(numbers, device=embeddings.device)[:, None].expand(-1, length)
        wanted = wanted.masked_fill(tokens.attention_mask == 0, -100)
        total = total + functional.cross_entropy(reading(embeddings).transpose(1, 2), wanted)
    return total


def _number(words: Sequence[str], word: str | None) -> int:
    return -100 if word is None else list(words).index(word)


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 2 and "encoder.block" in name and "relative" not in name
