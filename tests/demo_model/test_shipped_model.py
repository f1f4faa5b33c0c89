"""The demo model as it is shipped, through the phases that workers run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ddit_batch.model_config import known_models
from ddit_batch.phases import vae
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.encode import encode
from ddit_batch.phases.models.base import Decoder, Denoiser, Encoder, Frames
from ddit_batch.phases.models.registry import family_of, resolve_source
from ddit_batch.request import Request
from demo_model.checker import see
from demo_model.scenes import Background

CONFIG = known_models()["shapes"]
MOST_BYTES = 10_000_000

MakeClip = Callable[[str], Frames]


def make(encoder: Encoder, denoiser: Denoiser, decoder: Decoder, prompt: str) -> Frames:
    """A clip of the model's defaults."""
    defaults = CONFIG.defaults
    request = Request(
        custom_id="clip",
        line=1,
        model=CONFIG.name,
        prompt=prompt,
        negative_prompt="",
        height=defaults.height,
        width=defaults.width,
        num_frames=defaults.num_frames,
        num_inference_steps=defaults.num_inference_steps,
        guidance_scale=defaults.guidance_scale,
        seed=7,
        fps=defaults.fps,
    )
    start = denoiser.start(request, encode(encoder, request))
    done, _ = denoise(denoiser, start, lambda *_: Verdict.CONTINUE)
    return vae.decode(decoder, done.latents)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(resolve_source(CONFIG, tmp_path_factory.mktemp("unused")))


@pytest.fixture(scope="module")
def make_clip(folder: Path) -> MakeClip:
    family, cpu = family_of(CONFIG), torch.device("cpu")
    return partial(
        make,
        family.load_encoder(CONFIG, folder, cpu),
        family.load_denoiser(CONFIG, folder, cpu),
        family.load_decoder(CONFIG, folder, cpu),
    )


def test_model_is_small_enough_to_travel_with_the_code(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if file.is_file()]

    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert not [file for file in files if file.suffix in {".bin", ".pt", ".pkl"}]


def test_background_is_the_one_that_was_asked_for(make_clip: MakeClip) -> None:
    for background in Background:
        clip = make_clip(f"a large red circle on a {background} background")

        assert see(clip).background is background


def test_a_prompt_gives_the_same_bytes_again(make_clip: MakeClip) -> None:
    prompt = "a large blue square grows on a white background"

    assert np.array_equal(make_clip(prompt), make_clip(prompt))


@pytest.mark.parametrize(
    "prompt",
    ["an astronaut rides a horse", "日本の海 🌊", "?", "red circle " * 200],
    ids=["unknown words", "other script", "no word", "very long"],
)
def test_prompt_outside_its_words_gives_a_clip(make_clip: MakeClip, prompt: str) -> None:
    """Not what it says, but frames in which not all pixels are the same."""
    clip = make_clip(prompt)

    assert clip.shape == (9, 64, 64, 3)
    assert clip.dtype == np.uint8
    assert clip.min() != clip.max()


def test_configs_name_no_folder_of_the_machine_that_trained(folder: Path) -> None:
    for file in folder.rglob("*.json"):
        assert "_name_or_path" not in file.read_text("utf-8"), file
