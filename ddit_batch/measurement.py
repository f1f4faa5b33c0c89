"""What ``ddit profile`` asks of the workers, and the profile that their answers make.

No clock, no database: the command submits the lines, waits, and brings the seconds.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ddit_batch.job import Phase, Shape
from ddit_batch.model_config import Limits, ModelConfig
from ddit_batch.profile import (
    Decode,
    DecodeRow,
    Measured,
    Profile,
    Provenance,
    Row,
    Tokens,
)
from ddit_batch.refinement import Observation

DIGITS = 4
"""Significant ones in the file: repeats differ by more than the fourth says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Seconds of one finished attempt at one phase, on one worker."""

    phase: Phase
    shape: Shape
    seconds: float
    device: str
    """As the worker says: ``cpu``, ``cuda:0``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what the seconds were taken, for the provenance."""

    device: str
    """Empty: as the workers say."""
    software: str
    date: str
    steps: int
    """Denoising steps of each video."""


def usual_shapes(model: ModelConfig) -> tuple[Shape, ...]:
    """The model's default shape, one of fewer frames, and one of a quarter of the pixels.

    They differ in tokens, so that a profile of them can be interpolated.
    """
    usual, limits = model.defaults, model.limits
    half_height = _multiple(usual.height / 2, limits.size_multiple, limits)
    half_width = _multiple(usual.width / 2, limits.size_multiple, limits)
    half_frames = 1 + round((usual.num_frames - 1) / 2 / limits.frame_multiple) * (
        limits.frame_multiple
    )
    shapes = (
        Shape(usual.height, usual.width, usual.num_frames),
        Shape(usual.height, usual.width, half_frames),
        Shape(half_height, half_width, usual.num_frames),
    )
    return tuple(dict.fromkeys(shapes))


def _multiple(wanted: float, of: int, limits: Limits) -> int:
    return max(round(wanted / of) * of, -(-limits.min_size // of) * of)


def prompt_lines(
    model: str, shapes: Sequence[Shape], *, steps: int, repeats: int, stamp: str
) -> bytes:
    """The lines to submit: *repeats* of each shape in turn, so that a slow minute hits all alike.

    Every prompt is another one, and contains *stamp*: embeddings are cached by their text.
    """
    lines = [
        {
            "custom_id": f"{shape}-{repeat}",
            "model": model,
            "prompt": f"a ship on a calm sea, take {repeat} of {shape} at {stamp}",
            "height": shape.height,
            "width": shape.width,
            "num_frames": shape.num_frames,
            "num_inference_steps": steps,
        }
        for repeat in range(1, repeats + 1)
        for shape in shapes
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def measured_profile(
    model: ModelConfig,
    observations: Iterable[Observation],
    phases: Sequence[PhaseTime],
    conditions: Conditions,
    *,
    name: str,
) -> Profile:
    """The profile of *model* that the medians make.

    *observations* are of steps; *phases* has at least one attempt at encode, and one at VAE.
    """
    seen = [each for each in observations if each.model == model.name]
    decode = _by_shape(phases, Phase.VAE)
    encode = [time.seconds for time in phases if time.phase is Phase.ENCODE]
    steps: dict[Shape, dict[int, float]] = defaultdict(dict)
    for each in sorted(seen, key=lambda each: each.dop):
        steps[each.shape][each.dop] = _rounded(median(each.step_s))
    samples = min(len(each.step_s) for each in seen)
    return Profile(
        name=name,
        models=(model.name,),
        provenance=_provenance(phases, conditions, samples=samples),
        heads=model.heads,
        tokens=Tokens(
            px_per_token=model.limits.size_multiple, frames_per_latent=model.limits.frame_multiple
        ),
        steps=model.defaults.num_inference_steps,
        table=tuple(Row(shape=shape, step_s=steps[shape]) for shape in sorted(steps)),
        encode=Measured(seconds=_rounded(median(encode))),
        decode=Decode(
            rows=tuple(
                DecodeRow(shape=shape, seconds=_rounded(median(decode[shape])))
                for shape in sorted(decode)
            )
        ),
    )


def _provenance(phases: Sequence[PhaseTime], conditions: Conditions, *, samples: int) -> Provenance:
    said = sorted({time.device for time in phases if time.phase is Phase.DIT})
    return Provenance(
        device=conditions.device or ", ".join(said),
        software=conditions.software,
        date=conditions.date,
        samples=samples,
        sources=(
            f"ddit profile: medians over videos of {conditions.steps} steps, one segment each",
        ),
        doubts=(
            "A step's seconds are a segment's by its steps, with its beginning and end.",
            "Encode, DiT and VAE workers were at work at the same time.",
        ),
    )


def _by_shape(phases: Sequence[PhaseTime], phase: Phase) -> Mapping[Shape, list[float]]:
    found: dict[Shape, list[float]] = defaultdict(list)
    for time in phases:
        if time.phase is phase:
            found[time.shape].append(time.seconds)
    return found


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.{DIGITS}g}")


def profile_name(wanted: str) -> str:
    """*wanted* with what no name may have replaced by dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).lstrip("._-") or "measured"
