"""Tiny pipelines, built once a session, whole and in parts, with each solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from group_stage import CPU, MakeStagedModel, Stage, StagedModel
from tiny_model import MakeRequest, Model, load

from ddit_batch.model_config import Dtype, Dtypes, ModelConfig, Parallelism, known_models
from ddit_batch.phases.models import tiny
from ddit_batch.request import Request

REQUEST = Request(
    custom_id="fox",
    line=1,
    model="tiny-wan",
    prompt="a red fox runs",
    negative_prompt="blurry",
    height=64,
    width=64,
    num_frames=9,
    num_inference_steps=6,
    guidance_scale=5.0,
    seed=7,
    fps=8,
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return known_models()["tiny-wan"]


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder by the name of its solver."""
    folders = {name: tmp_path_factory.mktemp("models") / name for name in ("unipc", "euler")}
    tiny.build(folders["unipc"])
    tiny.build(folders["euler"], solver="euler")
    return folders


@pytest.fixture(scope="session")
def models(tiny_folders: dict[str, Path], config: ModelConfig) -> dict[str, Model]:
    """A loaded model by the name of its solver."""
    return {name: load(config, folder) for name, folder in tiny_folders.items()}


@pytest.fixture(scope="session")
def bfloat16_models(tiny_folders: dict[str, Path], config: ModelConfig) -> dict[str, Model]:
    """The same in the number formats in which large models run."""
    dtypes = Dtypes(text_encoder=Dtype.BFLOAT16, transformer=Dtype.BFLOAT16)
    mixed = config.model_copy(update={"dtypes": dtypes})
    return {name: load(mixed, folder) for name, folder in tiny_folders.items()}


@pytest.fixture(scope="session", params=["unipc", "euler"])
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    """A loaded model with each solver in turn."""
    name: str = request.param
    return models[name]


@pytest.fixture(scope="session")
def make_request() -> MakeRequest:
    """A small request with some fields changed."""
    return lambda **changes: replace(REQUEST, **changes)


@pytest.fixture(scope="session")
def _stages() -> Iterator[dict[tuple[str, ...], Stage]]:
    """By their devices, those that a test has asked for."""
    stages: dict[tuple[str, ...], Stage] = {}
    yield stages
    for stage in stages.values():
        stage.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest, _stages: dict[tuple[str, ...], Stage]) -> Iterator[Stage]:
    """Four worker processes without groups: on the CPU, unless the test names other devices."""
    devices: tuple[str, ...] = getattr(request, "param", (CPU,))
    stage = _stages.get(devices) or _stages.setdefault(devices, Stage(*devices))
    yield stage
    stage.close_groups()


@pytest.fixture
def staged(
    stage: Stage,
    config: ModelConfig,
    tiny_folders: dict[str, Path],
    models: dict[str, Model],
) -> MakeStagedModel:
    """Has all players load the model of a solver, with some fields of Parallelism."""

    def load_everywhere(solver: str = "unipc", **parallelism: Any) -> StagedModel:
        changes = {"parallelism": Parallelism(**parallelism)}
        stage.load(config.model_copy(update=changes), tiny_folders[solver])
        return StagedModel(stage, models[solver])

    return load_everywhere


@pytest.fixture
def staged_with_six_heads(
    stage: Stage,
    config: ModelConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeStagedModel:
    """The same with a model that three workers can share."""

    def load_everywhere(**parallelism: Any) -> StagedModel:
        folder = tmp_path_factory.getbasetemp() / "six-heads"
        if not folder.exists():
            tiny.build(folder, heads=6, head_dim=6)
        changed = config.model_copy(update={"heads": 6})
        changes = {"parallelism": Parallelism(**parallelism)}
        stage.load(changed.model_copy(update=changes), folder)
        return StagedModel(stage, load(changed, folder))

    return load_everywhere
