"""Profile files: what was measured of a model on a kind of device, with where it comes from.

YAML files in ``configs/profiles/`` (shipped) or anywhere (the user's own, such as those that
``ddit profile`` writes). This module reads and writes them; what follows from the numbers is in
``model_profile.py``. The format is explained in ``docs/cost-model.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from ddit_batch.config import Settings
from ddit_batch.cost import Basis
from ddit_batch.cost_curve import TokenGeometry
from ddit_batch.cost_model import UNKNOWN, CostModel
from ddit_batch.errors import ConfigError
from ddit_batch.job import Shape
from ddit_batch.model_config import Backend, ModelConfig, find_model, known_models
from ddit_batch.model_profile import LINEAR, QUADRATIC, ModelProfile
from ddit_batch.resources import data_folder
from ddit_batch.yaml_file import read_yaml

_SHAPE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def parse_shape(text: str) -> Shape:
    """The shape that ``WIDTHxHEIGHTxFRAMES`` means, such as ``1280x720x81``.

    Raises:
        ValueError: It is written in another way.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no shape: write WIDTHxHEIGHTxFRAMES, such as 1280x720x81")
    width, height, frames = map(int, match.groups())
    return Shape(height, width, frames)


def _as_shape(value: object) -> object:
    return parse_shape(value) if isinstance(value, str) else value


ShapeText = Annotated[Shape, BeforeValidator(_as_shape), PlainSerializer(str)]
Dop = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Provenance(_Value):
    """Where the numbers come from, and how far to trust them."""

    device: Text
    """The GPU, or the processor."""
    software: Text
    """What ran: engine, versions, settings that matter."""
    date: Text
    """When it was measured, or the date of its publication."""
    samples: Annotated[int, Field(ge=1)] | None
    """Measurements behind each number; null: not said."""
    sources: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Public addresses, or how it was measured."""
    doubts: tuple[Text, ...] = ()
    """What may be wrong with them, and what is derived rather than measured."""


class Tokens(_Value):
    """How a video becomes tokens. The fields are those of ``TokenGeometry``."""

    px_per_token: Annotated[int, Field(ge=1)] = 16
    """Side of a token in pixels."""
    frames_per_latent: Annotated[int, Field(ge=1)] = 4
    """Frames of one latent frame, after the first."""
    latents_per_token: Annotated[int, Field(ge=1)] = 1
    """Latent frames of one token."""
    chunk_frames: Annotated[int, Field(ge=0)] = 0
    """Frames that the VAE takes at a time; 0: all."""


class Row(_Value):
    """The steps of one shape."""

    shape: ShapeText
    """``WIDTHxHEIGHTxFRAMES``."""
    step_s: Annotated[dict[Dop, Seconds], Field(min_length=1)]
    """Seconds of a step by dop."""
    basis: Basis = Basis.MEASURED
    """How they are known, if they were not measured, nor derived from what was."""
    suspect: dict[Dop, Seconds] = {}
    """Published seconds by dop that are not used, but interpolated instead; ``note`` says why."""
    note: str = ""
    """What is to be said of this row."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if both := sorted(self.step_s.keys() & self.suspect.keys()):
            raise ValueError(f"dop {both[0]} is in step_s and in suspect: take it out of one")
        if self.suspect and not self.note:
            raise ValueError("note is missing: say why a published number is not used")
        return self


class DecodeRow(_Value):
    """The decoding of one shape."""

    shape: ShapeText
    """``WIDTHxHEIGHTxFRAMES``."""
    seconds: Seconds
    """On one worker."""


class Assumed(_Value):
    """A number that nobody measured."""

    seconds: Seconds
    """What is assumed."""
    why: Text
    """What it is derived from."""


class AssumedDecode(Assumed):
    """Decoding in proportion to pixels times frames, from one stated number."""

    shape: ShapeText
    """What takes ``seconds``."""


class Measured(_Value):
    """A number that was measured."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """On one worker."""


class Decode(_Value):
    """Either rows that were measured, or an assumption."""

    rows: tuple[DecodeRow, ...] = ()
    """Beyond and between them in proportion to pixels times frames."""
    assumed: AssumedDecode | None = None
    """Where nothing was measured."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.rows) == (self.assumed is not None):
            raise ValueError("give either rows (measured) or assumed (with shape, seconds, why)")
        return self


class AssumedScaling(_Value):
    """What is assumed of dops that no row has."""

    doubling_efficiency: Annotated[float, Field(gt=0.5, le=1)]
    """Seconds of a step at 2k are those at k, by twice this."""
    max_dop: Annotated[int, Field(ge=2)]
    """Up to which dop; powers of two only."""
    why: Text
    """What it is derived from."""


class Profile(_Value):
    """One profile file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """By which settings and commands choose it."""
    models: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Models that it speaks for; ``*`` and ``?`` are wildcards, case does not count."""
    provenance: Provenance
    """Where the numbers come from, and how far to trust them."""
    heads: Annotated[int, Field(ge=1)] | None = None
    """Attention heads of the DiT: a legal dop divides them; null: not known."""
    tokens: Tokens = Tokens()
    """How a video becomes tokens."""
    steps: Annotated[int, Field(ge=1)] = 50
    """Steps of a job when nobody says otherwise."""
    lone_exponent: Annotated[float, Field(ge=LINEAR, le=QUADRATIC)] = LINEAR
    """Power of the tokens by which a step grows, where a dop has only one row."""
    table: Annotated[tuple[Row, ...], Field(min_length=1)]
    """Seconds of a step."""
    encode: Measured | Assumed
    """Seconds of the encode phase: measured, or with a ``why`` if assumed."""
    decode: Decode
    """Seconds of the VAE phase."""
    scaling: AssumedScaling | None = None
    """What is assumed of dops that no row has; null: they are not used."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, rows in (("table", self.table), ("decode.rows", self.decode.rows)):
            shapes = [row.shape for row in rows]
            twice = next((shape for shape in shapes if shapes.count(shape) > 1), None)
            if twice:
                raise ValueError(f"{what} has {twice} twice: keep one of the rows")
        if not any(1 in row.step_s for row in self.table):
            raise ValueError("no row of table has dop 1: measure one shape on one worker")
        return self

    def for_model(self) -> ModelProfile:
        """The numbers, ready to be asked."""
        decode = self.decode.assumed
        given = (decode,) if decode else self.decode.rows
        scaling = self.scaling
        dops = sorted({dop for row in self.table for dop in row.step_s})
        return ModelProfile(
            name=self.name,
            models=self.models,
            heads=self.heads,
            geometry=TokenGeometry(**self.tokens.model_dump()),
            steps=self.steps,
            step_s={
                dop: {row.shape: row.step_s[dop] for row in self.table if dop in row.step_s}
                for dop in dops
            },
            row_basis={row.shape: row.basis for row in self.table},
            lone_exponent=self.lone_exponent,
            doubling_efficiency=scaling.doubling_efficiency if scaling else None,
            assumed_max_dop=scaling.max_dop if scaling else 1,
            encode_s=self.encode.seconds,
            encode_basis=Basis.MEASURED if isinstance(self.encode, Measured) else Basis.ASSUMED,
            decode_s={row.shape: row.seconds for row in given},
            decode_is_measured=decode is None,
        )


def load_profile(path: Path) -> Profile:
    """Read one YAML file.

    Raises:
        ConfigError: Not there, not YAML, or a field is wrong; the message names file, field, rule
            and cure.
    """
    return read_yaml(path, Profile, what="profile", cure="docs/cost-model.md has the format")


def profile_yaml(profile: Profile) -> str:
    """The text of the file that :func:`load_profile` reads back."""
    fields = profile.model_dump(mode="json", exclude_defaults=True)
    for row in fields["table"]:
        row["step_s"] = {int(dop): seconds for dop, seconds in row["step_s"].items()}
    return yaml.safe_dump(
        fields, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None
    )


def known_profiles() -> dict[str, Profile]:
    """The shipped profiles by name."""
    folder = data_folder("configs") / "profiles"
    profiles = [load_profile(path) for path in sorted(folder.glob("*.yaml"))]
    return {profile.name: profile for profile in profiles}


def find_profile(name_or_path: str, known: Mapping[str, Profile] | None = None) -> Profile:
    """The profile that is meant: the name of a shipped one (or of *known*), or a YAML file.

    Raises:
        ConfigError: It is neither; the message lists the names.
    """
    known = known_profiles() if known is None else known
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"}:
        return load_profile(path)
    raise ConfigError(
        f"profile {name_or_path!r} is unknown: name one of {', '.join(sorted(known))}, "
        "or a profile file (.yaml)"
    )


def make_cost_model(
    profiles: Iterable[Profile],
    *,
    heads: Mapping[str, int] | None = None,
    max_dop: int | None = None,
    unpadded: frozenset[str] = frozenset(),
    is_fixed: bool = False,
    unknown: ModelProfile = UNKNOWN,
) -> CostModel:
    """One cost model from one or several profiles; for a model of several the first one counts."""
    return CostModel(
        profiles=tuple(profile.for_model() for profile in profiles),
        heads=heads or {},
        max_dop=max_dop,
        unpadded=unpadded,
        is_fixed=is_fixed,
        unknown=unknown,
    )


def cost_model_of(settings: Settings) -> CostModel:
    """The cost model of a live system: the named profiles, then the shipped ones.

    Heads, and whether tokens are padded, are those of the model configs, which say what the workers
    really load: those in reach, and those that the settings name, if they are in reach here.

    Raises:
        ConfigError: A profile or model config is unknown or wrong.
    """
    shipped = known_profiles()
    models = known_models(settings.models_folder)
    for name in settings.models:
        with suppress(ConfigError):  # a file or folder of the workers' hosts
            found = find_model(name, models)
            models.setdefault(found.name, found)
    return make_cost_model(
        [*(find_profile(name, shipped) for name in settings.profiles), *shipped.values()],
        heads={model.name: model.heads for model in models.values()},
        unpadded=frozenset(name for name, model in models.items() if not _pads(model)),
        is_fixed=settings.profile_fixed,
    )


def _pads(model: ModelConfig) -> bool:
    """Whether a group may have any number of tokens; see ``Parallelism.refusal``."""
    how = model.parallelism
    return how.backend is Backend.XFUSER and how.ring == 1
