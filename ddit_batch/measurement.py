"""What ``ddit profile`` asks of the workers, and the profile that their answers make.

No clock, no database: the command submits the lines, waits, and brings the seconds.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from ddit_batch.cost import Basis
from ddit_batch.cost_curve import TokenGeometry
from ddit_batch.errors import RequestError, ServiceError
from ddit_batch.job import Phase, Shape
from ddit_batch.model_config import Limits, ModelConfig
from ddit_batch.profile import (
    Assumed,
    AssumedDecode,
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
WARM_UP_STEPS = 3
"""Steps of a video that is made before the clock counts: in the first ones libraries choose their
kernels and allocate, and groups form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTime:
    """Seconds of one finished attempt at one phase, on one worker."""

    phase: Phase
    shape: Shape
    seconds: float
    device: str
    """As the worker says: ``cpu``, ``cuda:0``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What some videos took."""

    observations: tuple[Observation, ...] = ()
    """Of steps."""
    phases: tuple[PhaseTime, ...] = ()
    start_s: tuple[float, ...] = ()
    """From a video's being sent to idle DiT workers to its leader's taking it."""
    form_s: tuple[float, ...] = ()
    """From a decision to its group's having formed."""

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            observations=self.observations + other.observations,
            phases=self.phases + other.phases,
            start_s=self.start_s + other.start_s,
            form_s=self.form_s + other.form_s,
        )

    def at(self, dop: int) -> Findings:
        """Without steps of other dops.

        A video's leader takes its first steps alone, until its group has formed: those are dearer
        than steps of a video that one worker makes, and no measure of them.
        """
        kept = tuple(seen for seen in self.observations if seen.dop == dop)
        return replace(self, observations=kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what the seconds were taken, for the provenance."""

    device: str
    """Empty: as the workers say."""
    software: str
    date: str
    steps: int
    """Denoising steps of each video."""
    workers: int
    """DiT workers at hand."""
    dops: tuple[int, ...] = ()
    """Those that were to be measured, of every shape; (): whatever came up."""


def dops_to_measure(
    model: ModelConfig,
    shapes: Sequence[Shape],
    workers_by_node: Sequence[int],
    asked: Sequence[int],
) -> tuple[int, ...]:
    """The dops that the workers at hand can form, ascending: 1, and those of *asked*.

    If none are asked for, the powers of two that are legal for one of *shapes*.

    Raises:
        RequestError: One that was asked for is legal for none of them, or there are too few workers
            for it.
    """
    widest = max(workers_by_node, default=1)
    if not asked:
        doublings = (2**i for i in range(widest.bit_length()))
        return tuple(dop for dop in doublings if not _refusal(model, shapes, dop))
    for dop in asked:
        if refusal := _refusal(model, shapes, dop):
            legal = [n for n in range(1, model.heads + 1) if not _refusal(model, shapes, n)]
            raise RequestError(
                f"--dop {dop} cannot be measured of {model.name}: {refusal}: "
                f"use {', '.join(map(str, legal))}"
            )
        if dop > widest:
            raise RequestError(
                f"--dop {dop} cannot be measured: no node has more than {widest} DiT workers that "
                f"serve {model.name}: start more of them (--workers), or leave it out"
            )
    return tuple(sorted({1, *asked}))


def _refusal(model: ModelConfig, shapes: Sequence[Shape], dop: int) -> str | None:
    """Why *dop* is legal for none of *shapes*; None if it is for one."""
    if model.heads % dop:
        return f"{dop} does not divide its {model.heads} attention heads"
    geometry = TokenGeometry(**_tokens(model).model_dump())
    refusals = [
        model.parallelism.refusal(
            dop=dop,
            heads=model.heads,
            tokens=geometry.tokens(shape),
            is_guided=model.defaults.guidance_scale > 1,
        )
        for shape in shapes
    ]
    return refusals[0] if all(refusals) else None


def _tokens(model: ModelConfig) -> Tokens:
    limits = model.limits
    return Tokens(px_per_token=limits.size_multiple, frames_per_latent=limits.frame_multiple)


def videos_at_once(workers_by_node: Sequence[int], dop: int) -> int:
    """How many groups of *dop* workers there is room for: groups stay inside a node."""
    return sum(workers // dop for workers in workers_by_node)


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
    model: str, shapes: Sequence[Shape], *, steps: int, repeats: int, stamp: str, at_once: int = 1
) -> bytes:
    """The lines to submit: *repeats* of each shape in turn, so that a slow minute hits all alike.

    Every other time in the opposite order, so that not always the same one is denoised while a
    large one is decoded. Of each there are *at_once* in a row, which so many groups take side by
    side. Every prompt is another one, and contains *stamp*: embeddings are cached by their text.
    """
    lines = [
        {
            "custom_id": f"{shape}-{take}",
            "model": model,
            "prompt": f"a ship on a calm sea, take {take} of {shape} at {stamp}",
            "height": shape.height,
            "width": shape.width,
            "num_frames": shape.num_frames,
            "num_inference_steps": steps,
        }
        for repeat in range(repeats)
        for shape in (shapes if repeat % 2 == 0 else reversed(shapes))
        for take in range(repeat * at_once + 1, (repeat + 1) * at_once + 1)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def measured_profile(
    model: ModelConfig, findings: Findings, conditions: Conditions, *, name: str
) -> Profile:
    """The profile of *model* that the medians make.

    Raises:
        ServiceError: It would not say what a step takes on one worker, or what encoding or
            decoding takes: no such video came out.
    """
    seen = [each for each in findings.observations if each.model == model.name]
    phases = findings.phases
    decode = _by_shape(phases, Phase.VAE)
    encode = [time.seconds for time in phases if time.phase is Phase.ENCODE]
    steps: dict[Shape, dict[int, float]] = defaultdict(dict)
    for each in sorted(seen, key=lambda each: each.dop):
        steps[each.shape][each.dop] = _rounded(median(each.step_s))
    if not (encode and decode and any(each.dop == 1 for each in seen)):
        raise ServiceError(
            f"no video of {model.name} came out that one worker denoised, so nothing was measured"
        )
    samples = min(len(each.step_s) for each in seen)
    return Profile(
        name=name,
        models=(model.name,),
        provenance=_provenance(phases, conditions, samples=samples),
        heads=model.heads,
        tokens=_tokens(model),
        steps=model.defaults.num_inference_steps,
        table=tuple(
            Row(shape=shape, step_s=steps[shape], note=_note(steps[shape].keys(), conditions.dops))
            for shape in sorted(steps)
        ),
        encode=Measured(seconds=_rounded(median(encode))),
        decode=Decode(
            rows=tuple(
                DecodeRow(shape=shape, seconds=_rounded(median(decode[shape])))
                for shape in sorted(decode)
            )
        ),
    )


def _note(found: Collection[int], wanted: Sequence[int]) -> str:
    """Which of the dops that were *wanted* a row lacks; empty if none."""
    missing = [str(dop) for dop in wanted if dop not in found]
    if not missing:
        return ""
    dops = "dop" if len(missing) == 1 else "dops"
    return f"Not measured: {dops} {', '.join(missing)}. No group of so many denoised this shape."


def _provenance(phases: Sequence[PhaseTime], conditions: Conditions, *, samples: int) -> Provenance:
    said = sorted({time.device for time in phases if time.phase is Phase.DIT})
    workers = "1 worker" if conditions.workers == 1 else f"{conditions.workers} workers"
    placed = (
        "as many at once as {} make at that dop" if conditions.dops else "as {} were given them"
    )
    source = (
        f"ddit profile: medians over videos of {conditions.steps} steps, one segment each, "
        f"{placed.format(workers)}"
    )
    return Provenance(
        device=conditions.device or ", ".join(said),
        software=conditions.software,
        date=conditions.date,
        samples=samples,
        sources=(source,),
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


def stand_in(model: ModelConfig, shape: Shape, dops: Sequence[int]) -> Profile:
    """A profile of nothing but which dops there are, for the scheduler of a measurement.

    It gives no job a dop that it knows no seconds for, and these are not known yet.
    """
    why = "Not known: it is being measured."
    return Profile(
        name="being-measured",
        models=(model.name,),
        provenance=Provenance(
            device="?", software="?", date="?", samples=None, sources=("ddit profile",)
        ),
        heads=model.heads,
        table=(
            Row(shape=shape, step_s={dop: 1.0 / dop for dop in (1, *dops)}, basis=Basis.ASSUMED),
        ),
        encode=Assumed(seconds=1.0, why=why),
        decode=Decode(assumed=AssumedDecode(seconds=1.0, why=why, shape=shape)),
    )


def profile_name(wanted: str) -> str:
    """*wanted* with what no name may have replaced by dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).lstrip("._-") or "measured"
