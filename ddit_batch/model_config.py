"""What the control plane knows of a model: where it is, what it takes, what it does by default.

Model configs are YAML files in ``configs/models/`` (shipped) or in the user's own folder. A folder
in diffusers' format works without a config: see ``from_folder``. No torch here: whether the weights
are really there is found out by the worker that loads them.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddit_batch.errors import ConfigError
from ddit_batch.resources import data_folder
from ddit_batch.yaml_file import read_yaml


class Family(StrEnum):
    """Which adapter in ``phases/models/`` speaks for the model."""

    WAN = "wan"


class Dtype(StrEnum):
    """The number format in which a part of the model is loaded. The words are torch's."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Backend(StrEnum):
    """Whose sequence parallelism denoises the model with several workers."""

    XFUSER = "xfuser"
    """USP: any number of tokens, because it pads and masks."""
    DIFFUSERS = "diffusers"
    """Its own context parallelism: only dops that divide the tokens."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Defaults(_Value):
    """What a line gets when it does not say otherwise."""

    negative_prompt: str = ""
    height: int = 480
    width: int = 832
    num_frames: int = 81
    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    fps: int = 16


class Limits(_Value):
    """What the model can take. The rules hold for height, width and frames of every line."""

    size_multiple: Annotated[int, Field(ge=1)] = 16
    """Height and width are multiples of this: VAE stride times patch size."""
    frame_multiple: Annotated[int, Field(ge=1)] = 4
    """``num_frames - 1`` is a multiple of this: the VAE's stride in time."""
    min_size: int = 16
    max_size: int = 1280
    max_frames: int = 241
    max_steps: int = 1000
    max_prompt_chars: int = 8000


class Dtypes(_Value):
    """One number format for each part, as the model's card recommends."""

    text_encoder: Dtype = Dtype.FLOAT32
    transformer: Dtype = Dtype.FLOAT32
    vae: Dtype = Dtype.FLOAT32


class Parallelism(_Value):
    """How several workers denoise one video of the model."""

    backend: Backend = Backend.XFUSER
    guidance: bool = False
    """CFG-parallel: the halves of the group ask with and without the prompt, where the request is
    guided."""
    ring: int = 1
    """Degree of ring attention within the group; xfuser only."""


class ModelConfig(_Value):
    """One model that lines may name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    family: Family
    source: str
    """A folder in diffusers' format, a hub id, or ``builtin:tiny-wan`` (built offline)."""
    revision: str | None = None
    """Of a hub id: the commit, so that the same name stays the same model."""
    heads: Annotated[int, Field(ge=1)]
    """Attention heads of the DiT; a legal dop divides them."""
    max_sequence_length: Annotated[int, Field(ge=1)] = 512
    """Tokens to which the text encoder pads or cuts a prompt."""
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    dtypes: Dtypes = Dtypes()
    parallelism: Parallelism = Parallelism()


def load_model_config(path: Path) -> ModelConfig:
    """Read one YAML file.

    Raises:
        ConfigError: Not there, not YAML, or a field is wrong; the message names the field.
    """
    return read_yaml(path, ModelConfig, what="model config")


def from_folder(folder: Path) -> ModelConfig:
    """A config for a pipeline folder in diffusers' format, with the family's own defaults.

    Raises:
        ConfigError: No pipeline there, or one of a family that no adapter speaks for.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        transformer = json.loads((folder / "transformer" / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{folder} is not a pipeline in diffusers' format (needs model_index.json and "
            f"transformer/config.json): {exc}"
        ) from exc
    found = index.get("_class_name") if isinstance(index, dict) else None
    if found != "WanPipeline":
        raise ConfigError(f"{folder} holds a {found}; supported: WanPipeline (Wan 2.1)")
    if any(index.get("transformer_2") or ()) or index.get("expand_timesteps"):
        raise ConfigError(f"{folder} holds a Wan 2.2 pipeline; supported: WanPipeline (Wan 2.1)")
    heads = transformer.get("num_attention_heads") if isinstance(transformer, dict) else None
    try:
        return ModelConfig.model_validate(
            {
                "name": folder.resolve().name,
                "family": Family.WAN,
                "source": str(folder.resolve()),
                "heads": heads,
            }
        )
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ConfigError(
            f"{folder}: {first['loc'][0]}: {first['msg']} (found {first['input']!r}): rename the "
            "folder, or write a model config (.yaml) that names it as its source"
        ) from exc


def known_models(extra_folder: Path | None = None) -> dict[str, ModelConfig]:
    """All model configs by name: the shipped ones, then those in *extra_folder*, which win."""
    folders = [data_folder("configs") / "models", *([extra_folder] if extra_folder else [])]
    configs = [load_model_config(path) for f in folders for path in sorted(f.glob("*.yaml"))]
    return {config.name: config for config in configs}


def find_model(name: str, models: dict[str, ModelConfig]) -> ModelConfig:
    """The model that *name* means: a name among *models*, a YAML file, or a pipeline folder.

    Raises:
        ConfigError: It is none of these; the message lists the names.
    """
    if name in models:
        return models[name]
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return load_model_config(path)
    if path.is_dir():
        return from_folder(path)
    raise ConfigError(
        f"model {name!r} is unknown: name one of {', '.join(sorted(models))}, "
        "a model config (.yaml) or a folder in diffusers' format"
    )
