"""The model that is built offline, and where it is put."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from ddit_batch.errors import ConfigError
from ddit_batch.model_config import ModelConfig, from_folder
from ddit_batch.phases.models import tiny
from ddit_batch.phases.models.registry import resolve_source


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_build_has_the_same_bytes(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Every file is equal, so that videos of two machines can be compared."""
    torch.manual_seed(1234)

    tiny.build(tmp_path / "again")

    assert _digests(tmp_path / "again") == _digests(tiny_folders["unipc"])


def test_building_leaves_the_callers_random_numbers_be(tmp_path: Path) -> None:
    """The global generator is afterwards where it was."""
    before = torch.get_rng_state()

    tiny.build(tmp_path / "model")

    assert torch.equal(torch.get_rng_state(), before)


def test_the_shipped_config_fits_the_model(
    tiny_folders: dict[str, Path], config: ModelConfig
) -> None:
    """Heads are those of the transformer, and its positions reach to the largest size."""
    assert from_folder(tiny_folders["unipc"]).heads == config.heads == tiny.HEADS
    transformer = WanTransformer3DModel.load_config(tiny_folders["unipc"], subfolder="transformer")
    assert transformer["rope_max_seq_len"] >= config.limits.max_size // 16


def test_a_heavier_one_can_be_asked_for(tmp_path: Path) -> None:
    """The command line sets layers, width and solver."""
    folder = tmp_path / "heavy"

    tiny.main([str(folder), "--solver", "euler", "--layers", "3", "--head-dim", "24"])

    built = WanTransformer3DModel.load_config(folder, subfolder="transformer")
    assert (built["num_layers"], built["attention_head_dim"]) == (3, 24)
    assert "FlowMatchEuler" in (folder / "scheduler" / "scheduler_config.json").read_text()


def test_a_builtin_model_is_built_once(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker builds it, the next one finds it."""
    folder = tmp_path / "models"

    first = resolve_source(config, folder)
    monkeypatch.delattr(tiny, "build")

    assert resolve_source(config, folder) == first == str(folder / "tiny-wan")
    assert [path.name for path in folder.iterdir()] == ["tiny-wan"]


def test_two_builders_at_once_do_no_harm(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is second uses what the first one made and leaves nothing behind."""

    def slow_build(folder: Path) -> None:
        folder.mkdir()
        (folder / "mine").touch()
        other = tmp_path / "tiny-wan"
        other.mkdir()
        (other / "theirs").touch()

    monkeypatch.setattr(tiny, "build", slow_build)

    source = resolve_source(config, tmp_path)

    assert [path.name for path in Path(source).iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-wan"]


def test_a_build_that_fails_leaves_nothing_behind(
    config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later attempt is not misled by half a model."""

    def failing_build(folder: Path) -> None:
        folder.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(tiny, "build", failing_build)

    with pytest.raises(ConfigError, match="disk full; set DDIT_BUILT_MODELS_FOLDER"):
        resolve_source(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_sources_stay_as_they_are(config: ModelConfig, tmp_path: Path) -> None:
    """A folder or hub id is not touched; an unknown builtin is refused."""
    hub = config.model_copy(update={"source": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"})
    unknown = config.model_copy(update={"source": "builtin:huge"})

    assert resolve_source(hub, tmp_path) == hub.source
    with pytest.raises(ConfigError, match="no builtin model 'huge'"):
        resolve_source(unknown, tmp_path)
