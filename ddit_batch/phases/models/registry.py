"""Which module speaks for a family of models, and where a model's files are."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ddit_batch.errors import ConfigError
from ddit_batch.model_config import Family, ModelConfig
from ddit_batch.phases.models import tiny, wan
from ddit_batch.phases.models.base import ModelFamily
from ddit_batch.resources import data_folder

_BUILTIN = "builtin:"
_BUILT = "tiny-wan"


def family_of(config: ModelConfig) -> ModelFamily:
    """The module that loads *config*'s model."""
    match config.family:
        case Family.WAN:
            return wan


def resolve_source(config: ModelConfig, built_models_folder: Path) -> str:
    """Where *config*'s model is: its source as it stands, or the folder of a builtin model.

    A builtin model travels with the code, or is built first, in *built_models_folder*. The folder
    appears in one move, so that processes that build at once do no harm: the first one wins.

    Raises:
        ConfigError: There is no such builtin model, or the folder cannot be written.
    """
    if not config.source.startswith(_BUILTIN):
        return config.source
    name = config.source.removeprefix(_BUILTIN)
    shipped = data_folder("configs") / "models" / name
    if name and (shipped / "model_index.json").is_file():
        return str(shipped)
    if name != _BUILT:
        raise ConfigError(
            f"model {config.name}: no builtin model {name!r} (there are {_BUILT} and the folders "
            f"in {shipped.parent})"
        )
    folder = built_models_folder.expanduser() / name
    if not folder.is_dir():
        try:
            _build_into(folder)
        except OSError as exc:
            raise ConfigError(
                f"model {config.name} cannot be built in {folder}: {exc}; "
                "set DDIT_BUILT_MODELS_FOLDER to a folder that can be written"
            ) from exc
    return str(folder)


def _build_into(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        built = Path(scratch) / folder.name
        tiny.build(built)
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():  # not because another process was first
                raise
