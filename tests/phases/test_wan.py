"""The Wan family: the same bits as diffusers' pipeline, part by part, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import MakeRequest, Model

from ddit_batch.errors import ArtifactError, ConfigError
from ddit_batch.model_config import ModelConfig, VaeStrides
from ddit_batch.phases.encode import encode
from ddit_batch.phases.models import wan
from ddit_batch.phases.models.base import Embeddings

CPU = torch.device("cpu")


@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
@pytest.mark.parametrize("shape", [(64, 64, 9), (96, 128, 17)], ids=str)
def test_phases_give_the_bits_of_one_plain_pipeline_call(
    model: Model, make_request: MakeRequest, guidance_scale: float, shape: tuple[int, int, int]
) -> None:
    """Latents and frames equal those of WanPipeline, with and without guidance."""
    height, width, num_frames = shape
    request = make_request(
        height=height, width=width, num_frames=num_frames, guidance_scale=guidance_scale
    )

    latents, frames = model.latents(request), model.frames(request)

    assert torch.equal(latents, model.whole(request, "latent"))
    assert np.array_equal(frames, model.whole_frames(request))
    assert frames.shape == (num_frames, height, width, 3)
    assert frames.dtype == np.uint8


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_mixed_number_formats_give_the_pipelines_bits_too(
    bfloat16_models: dict[str, Model], make_request: MakeRequest, solver: str
) -> None:
    """Text encoder and transformer in bfloat16 round where the pipeline rounds."""
    model, request = bfloat16_models[solver], make_request()

    assert torch.equal(model.latents(request), model.whole(request, "latent"))
    assert np.array_equal(model.frames(request), model.whole_frames(request))


@pytest.mark.parametrize(
    "change",
    [{"prompt": "waves at night"}, {"negative_prompt": ""}, {"guidance_scale": 1.0}, {"seed": 8}],
    ids=str,
)
def test_every_part_of_a_request_shows_in_its_video(
    models: dict[str, Model], make_request: MakeRequest, change: dict[str, Any]
) -> None:
    """Prompt, negative prompt, guidance and seed each change pixels by more than rounding."""
    before = models["unipc"].frames(make_request()).astype(int)

    after = models["unipc"].frames(make_request(**change)).astype(int)

    assert np.abs(after - before).mean() > 5


def test_without_guidance_nothing_negative_is_encoded(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """A guidance scale of 1 or less makes embeddings without a negative prompt."""
    embeddings = encode(models["unipc"].encoder, make_request(guidance_scale=1.0))

    assert embeddings.negative is None


def test_a_repeated_text_is_encoded_once(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """Two requests with the same negative prompt share its embedding."""
    encoder = models["unipc"].encoder

    first = encode(encoder, make_request(prompt="one"))
    second = encode(encoder, make_request(prompt="two"))

    assert first.negative is second.negative
    assert not torch.equal(first.prompt, second.prompt)


def test_embeddings_that_lack_the_negative_prompt_are_refused(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """Guidance with embeddings that were made without it raises instead of being skipped."""
    unguided = encode(models["unipc"].encoder, make_request(guidance_scale=1.0))

    with pytest.raises(ArtifactError, match="encode the request again"):
        models["unipc"].denoiser.start(make_request(), unguided)


def test_unneeded_negative_embeddings_are_ignored(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """Without guidance a negative embedding changes nothing."""
    model, unguided = models["unipc"], make_request(guidance_scale=1.0)
    prompt = encode(model.encoder, unguided).prompt

    state = model.denoiser.start(unguided, Embeddings(prompt=prompt, negative=prompt + 1))

    assert state.embeddings.negative is None


def test_a_step_that_fails_in_the_transformer_leaves_the_state_good(
    model: Model, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error in mid step the same state can be stepped again, to the same latents."""
    request = make_request()
    state = model.denoiser.step(model.start(request))

    def failing(**_: Any) -> None:
        raise RuntimeError("a peer is gone")

    monkeypatch.setattr(model.denoiser, "transformer", failing)
    with pytest.raises(RuntimeError, match="a peer is gone"):
        model.denoiser.step(state)
    monkeypatch.undo()
    while not state.is_done:
        with torch.no_grad():
            state = model.denoiser.step(state)

    assert torch.equal(state.latents, model.latents(request))


def test_two_requests_at_once_do_not_share_a_solver(
    model: Model, make_request: MakeRequest
) -> None:
    """Steps of two requests, taken in turn, give what each gives alone."""
    requests = [make_request(), make_request(seed=8, prompt="waves")]
    states = [model.start(request) for request in requests]

    with torch.no_grad():
        while not states[0].is_done:
            states = [model.denoiser.step(state) for state in states]

    for state, request in zip(states, requests, strict=True):
        assert torch.equal(state.latents, model.latents(request))


PARTS = {
    "load_encoder": ["text_encoder", "tokenizer"],
    "load_denoiser": ["transformer", "scheduler"],
    "load_decoder": ["vae"],
}


@pytest.mark.parametrize("loader", PARTS)
def test_a_part_needs_its_own_files_only(
    tiny_folders: dict[str, Path], config: ModelConfig, tmp_path: Path, loader: str
) -> None:
    """Each phase loads from a folder that has nothing of the other phases."""
    shutil.copy(tiny_folders["unipc"] / "model_index.json", tmp_path)
    for part in PARTS[loader]:
        shutil.copytree(tiny_folders["unipc"] / part, tmp_path / part)

    assert getattr(wan, loader)(config, tmp_path, CPU)


@pytest.mark.parametrize("loader", PARTS)
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_an_incomplete_folder_is_a_config_error(
    tiny_folders: dict[str, Path], config: ModelConfig, tmp_path: Path, loader: str, damage: str
) -> None:
    """Weights that are missing or cut off are reported with the part and the cure."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folders["unipc"], folder)
    weights = next((folder / PARTS[loader][0]).glob("*.safetensors"))
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(ConfigError, match=r"cannot be loaded from .* give a complete folder"):
        getattr(wan, loader)(config, folder, CPU)


def _edit(file: str, **changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _solver(class_name: str, **settings: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        _edit("model_index.json", scheduler=["diffusers", class_name])(folder)
        path = folder / "scheduler" / "scheduler_config.json"
        path.write_text(json.dumps({"_class_name": class_name, **settings}))

    return edit


UNSUITABLE = {
    "two transformers": _edit("model_index.json", transformer_2=["diffusers", "WanTransformer3D"]),
    "Wan 2.2 TI2V": _edit("model_index.json", expand_timesteps=True),
    "only WanPipeline": _edit("model_index.json", _class_name="WanImageToVideoPipeline"),
    "correct the model config": _edit(
        "transformer/config.json", num_attention_heads=2, attention_head_dim=24
    ),
    "does not have": _solver("NoSuchScheduler"),
    "random numbers": _solver("FlowMatchEulerDiscreteScheduler", stochastic_sampling=True),
    "7 calls for 4 steps": _solver("FlowMatchHeunDiscreteScheduler"),
    "does not work as configured": _solver(
        "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting=True
    ),
    "cannot be loaded": _edit("transformer/config.json", num_layers=3),
}


@pytest.mark.parametrize("reason", UNSUITABLE)
def test_a_pipeline_that_cannot_be_run_step_by_step_is_refused(
    tiny_folders: dict[str, Path], config: ModelConfig, tmp_path: Path, reason: str
) -> None:
    """What the phases cannot do is found out on loading, and the message says what it is."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_folders["unipc"], folder)
    UNSUITABLE[reason](folder)

    with pytest.raises(ConfigError, match=reason):
        wan.load_denoiser(config, folder, CPU)


def test_a_vae_whose_strides_the_config_does_not_have_is_refused(
    tiny_folders: dict[str, Path], config: ModelConfig
) -> None:
    """Its videos would be of another size than the lines ask for."""
    strides = VaeStrides(space_px=16)

    with pytest.raises(ConfigError, match=r"space_px=16.*space_px=8.*correct the model config"):
        wan.load_decoder(
            config.model_copy(update={"vae_strides": strides}), tiny_folders["unipc"], CPU
        )


def test_other_deterministic_solvers_work(
    tiny_folders: dict[str, Path],
    config: ModelConfig,
    models: dict[str, Model],
    make_request: MakeRequest,
    tmp_path: Path,
) -> None:
    """A solver that nobody has foreseen works when it takes one deterministic call a step."""
    shutil.copytree(tiny_folders["unipc"], tmp_path, dirs_exist_ok=True)
    settings = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    _solver("DPMSolverMultistepScheduler", **settings)(tmp_path)
    denoiser = wan.load_denoiser(config, tmp_path, CPU)
    request = make_request()

    with torch.no_grad():
        state = denoiser.start(request, encode(models["unipc"].encoder, request))
        while not state.is_done:
            state = denoiser.step(state)

    assert torch.isfinite(state.latents).all()
