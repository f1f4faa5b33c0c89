"""What the control plane knows of a model: where it is, what it takes, what it does by default.

Model configs are YAML files in ``configs/models/`` (shipped) or in the user's own folder. A folder
in diffusers' format works without a config: see ``from_folder``. No torch here: whether the weights
are really there is found out by the worker that loads them.
"""

from __future__ import annotations

import json
from enum import StrEnum
from math import gcd
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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


class VaeStrides(_Value):
    """What one latent cell covers. A DiT worker goes by it: it has nothing of the VAE."""

    space_px: Annotated[int, Field(ge=1)] = 8
    time_frames: Annotated[int, Field(ge=1)] = 4


class Dtypes(_Value):
    """One number format for each part, as the model's card recommends."""

    text_encoder: Dtype = Dtype.FLOAT32
    transformer: Dtype = Dtype.FLOAT32
    vae: Dtype = Dtype.FLOAT32


class Backend(StrEnum):
    """Which library lets several workers denoise one job together."""

    XFUSER = "xfuser"
    """xfuser's USP: any number of tokens; rings."""
    DIFFUSERS = "diffusers"
    """diffusers' context parallelism: a dop divides the tokens."""


class Parallelism(_Value):
    """How the workers of one group share a step."""

    backend: Backend = Backend.XFUSER
    guidance: bool = False
    """Half of a group of even size asks with the prompt and half without, where the request uses
    guidance; each half splits the sequence."""
    ring: Annotated[int, Field(ge=1)] = 1
    """How many ranks pass keys and values around, instead of exchanging heads: as many of them as
    divide the ranks that split the sequence. More than 1 rounds otherwise than one worker does."""

    @model_validator(mode="after")
    def _has_rings_where_they_run(self) -> Self:
        if self.ring > 1 and self.backend is not Backend.XFUSER:
            raise ValueError(f"ring {self.ring} needs backend xfuser; {self.backend} has no rings")
        return self

    def refusal(self, *, dop: int, heads: int, tokens: int, is_guided: bool) -> str | None:
        """Why *dop* workers cannot take a step of so many tokens together; None if they can."""
        ranks = dop // 2 if self.guidance and is_guided and dop % 2 == 0 else dop
        around = gcd(ranks, self.ring)
        if heads % (ranks // around):
            return f"{ranks // around} ranks exchange heads and do not divide {heads} heads"
        if tokens % ranks and (self.backend is Backend.DIFFUSERS or around > 1):
            without = "rings" if around > 1 else self.backend.value
            return f"{ranks} ranks do not divide {tokens} tokens, and {without} cannot pad"
        return None


class ModelConfig(_Value):
    """One model that lines may name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    family: Family
    source: str
    """A folder in diffusers' format, a hub id, or a builtin model: ``builtin:shapes`` (shipped),
    ``builtin:tiny-wan`` (built offline)."""
    revision: str | None = None
    """Of a hub id: the commit, so that the same name stays the same model."""
    heads: Annotated[int, Field(ge=1)]
    """Attention heads of the DiT; a legal dop divides them."""
    max_sequence_length: Annotated[int, Field(ge=1)] = 512
    """Tokens to which the text encoder pads or cuts a prompt."""
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    vae_strides: VaeStrides = VaeStrides()
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
