"""A Wan pipeline of random weights, built offline in a second: for tests, trials and benchmarks.

Its videos are noise, but noise that depends on prompt and seed, and of a size at which comparing
numbers means something. The same arguments give the same files, byte for byte. The parts that do
not depend on a size are for builders of larger ones, too.

``python -m ddit_batch.phases.models.tiny FOLDER`` builds one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

SolverName = Literal["unipc", "euler"]

HEADS = 4
"""Attention heads: dops 1, 2 and 4 are legal. The shipped ``tiny-wan`` config says so too."""

TEXT_DIM = 32
LATENT_CHANNELS = 16
"""As Wan 2.1 has."""
_FLOW_SHIFT = 3.0
_PADDING, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_CORPUS = (
    "a red fox runs over fresh snow at sunrise",
    "waves break on black rocks, seen from above",
    "an old tram turns a corner in the rain at night",
)


def build(
    folder: Path,
    *,
    solver: SolverName = "unipc",
    layers: int = 2,
    heads: int = HEADS,
    head_dim: int = 12,
    seed: int = 0,
) -> None:
    """Write a pipeline in diffusers' format to *folder*.

    *layers*, *heads* and *head_dim* (even, at least 6: three rotary axes share it) make the
    transformer heavier, for benchmarks: it is *heads* times *head_dim* wide. Leaves the caller's
    random numbers be.
    """
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        tokenizer = make_tokenizer()
        text_encoder = make_text_encoder(len(tokenizer))
        transformer = _transformer(layers=layers, heads=heads, head_dim=head_dim)
        vae = _vae()
    generator = torch.Generator("cpu").manual_seed(seed)
    for module in (text_encoder, transformer, vae):
        draw_weights(module, generator)
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        transformer=transformer,
        vae=vae,
        scheduler=make_solver(solver),
    ).save_pretrained(folder)


def make_tokenizer(
    corpus: Iterable[str] = _CORPUS, *, vocabulary: int = 320, is_lower_case: bool = False
) -> Any:
    """Byte-level BPE, made from *corpus*: every text has tokens.

    In lower case, letters that differ in that alone are the same token.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    if is_lower_case:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PADDING, _END, _UNKNOWN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, tokenizer.token_to_id(_END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PADDING,
        eos_token=_END,
        unk_token=_UNKNOWN,
        model_max_length=512,
    )


def make_text_encoder(vocab_size: int) -> Any:
    """Two layers that make embeddings of ``TEXT_DIM``."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocab_size,
            d_model=TEXT_DIM,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
        )
    )


def _transformer(*, layers: int, heads: int, head_dim: int) -> Any:
    return WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_DIM,
        ffn_dim=4 * heads * head_dim,
        num_layers=layers,
    )


def _vae() -> Any:
    return AutoencoderKLWan(
        base_dim=4, z_dim=LATENT_CHANNELS, dim_mult=[1, 1, 1, 1], num_res_blocks=1
    )


def make_solver(name: SolverName) -> Any:
    """The solver as Wan 2.1 configures it."""
    match name:
        case "unipc":
            return UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=_FLOW_SHIFT
            )
        case "euler":
            return FlowMatchEulerDiscreteScheduler(shift=_FLOW_SHIFT)


@torch.no_grad()
def draw_weights(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Redraw every random weight so that each layer passes on numbers of the size it gets.

    What a constructor filled with one value (norms, zero biases) stays as it is.
    """
    for parameter in module.parameters():
        if (parameter != parameter.flatten()[0]).any():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
            parameter.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build a tiny pipeline from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ddit_batch.phases.models.tiny",
        description="Build a Wan pipeline of random weights.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--solver", choices=("unipc", "euler"), default="unipc")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=HEADS)
    parser.add_argument("--head-dim", type=int, default=12, help="even, at least 6")
    given = parser.parse_args(arguments)
    build(
        given.folder,
        solver=given.solver,
        layers=given.layers,
        heads=given.heads,
        head_dim=given.head_dim,
    )


if __name__ == "__main__":
    main()
