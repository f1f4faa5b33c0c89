"""A worker serves the models that it can load, and knows why not the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ddit_batch.errors import PhaseError
from ddit_batch.model_config import from_folder
from ddit_batch.phases.models import tiny
from ddit_batch.phases.models.base import ModelFamily
from workers.runtime import Models


def load_part(family: ModelFamily, config: object, source: str, device: torch.device) -> object:
    """What a DiT worker loads."""
    return family.load_denoiser(config, source, device)


def test_model_that_cannot_be_loaded_keeps_no_other_from_being_served(tmp_path: Path) -> None:
    """Its problem is named; asking for it says what is served instead."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    tiny.build(good)
    shutil.copytree(good, bad)
    for weights in (bad / "transformer").glob("*.safetensors"):
        weights.unlink()

    models = Models(
        [from_folder(bad), from_folder(good)],
        load_part,
        device=torch.device("cpu"),
        built_models_folder=tmp_path,
    )

    assert tuple(models.configs) == ("good",)
    assert models.part("good") is not None
    assert set(models.problems) == {"bad"}
    assert models.problems["bad"].startswith("model bad: the transformer cannot be loaded from")
    with pytest.raises(PhaseError, match=r"it serves good"):
        models.part("bad")
