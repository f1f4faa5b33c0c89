"""The field names that users bring from other tools, and what to tell them.

Data, and one function over it. An unknown field is never guessed at silently: a typo that becomes a
default costs GPU hours. The names were collected from the command lines and APIs of Wan,
HunyuanVideo, LightX2V, diffusers and OpenAI.
"""

from __future__ import annotations

import dataclasses
import difflib
from functools import lru_cache

from ddit_batch.line_rules import Fault, shown_name
from ddit_batch.request import Request

ALIASES: dict[str, str] = {
    "caption": "prompt",
    "prompt_en": "prompt",
    "text": "prompt",
    "neg_prompt": "negative_prompt",
    "n_prompt": "negative_prompt",
    "base_seed": "seed",
    "random_seed": "seed",
    "frame_num": "num_frames",
    "frames": "num_frames",
    "length": "num_frames",
    "n_frames": "num_frames",
    "target_video_length": "num_frames",
    "video_length": "num_frames",
    "infer_steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "sample_steps": "num_inference_steps",
    "sampling_steps": "num_inference_steps",
    "steps": "num_inference_steps",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "guidance": "guidance_scale",
    "sample_guide_scale": "guidance_scale",
    "true_cfg_scale": "guidance_scale",
    "frame_rate": "fps",
    "target_fps": "fps",
    "video_height": "height",
    "video_width": "width",
    "id": "custom_id",
    "index": "custom_id",
    "name": "custom_id",
    "request_id": "custom_id",
    "task_id": "custom_id",
    "model_name": "model",
    "extra": "metadata",
    "tags": "metadata",
}
"""Fields of other tools that mean one of ours."""

_SIZE = "use height and width, in pixels"
_DURATION = "use num_frames and fps: num_frames = seconds * fps + 1"
_IMAGE = "leave it out: videos are made from text only"
_PARALLEL = "leave it out: the scheduler decides how many GPUs a job gets"
_MODEL_OWN = "leave it out: the model's own value is used"
_OPENAI = "put the fields of body at the top of the line"

ADVICE: dict[str, str] = {
    "aspect_ratio": _SIZE,
    "resolution": _SIZE,
    "size": _SIZE,
    "target_shape": _SIZE,
    "video_size": _SIZE,
    "duration": _DURATION,
    "seconds": _DURATION,
    "image": _IMAGE,
    "image_path": _IMAGE,
    "image_url": _IMAGE,
    "input_reference": _IMAGE,
    "ring_degree": _PARALLEL,
    "ring_size": _PARALLEL,
    "sp_size": _PARALLEL,
    "ulysses_degree": _PARALLEL,
    "ulysses_size": _PARALLEL,
    "embedded_cfg_scale": _MODEL_OWN,
    "flow_shift": _MODEL_OWN,
    "guidance_scale_2": _MODEL_OWN,
    "sample_shift": _MODEL_OWN,
    "sample_solver": _MODEL_OWN,
    "n": "write one line for each video, each with its own seed",
    "num_videos_per_prompt": "write one line for each video, each with its own seed",
    "body": _OPENAI,
    "method": _OPENAI,
    "url": _OPENAI,
}
"""Fields of other tools that mean none of ours, and what to do instead."""

FIELDS = tuple(field.name for field in dataclasses.fields(Request) if field.name != "line")
"""Every field that a line may have."""

_MAX_GUESSED_CHARS = 64


def unknown_field(name: str, *, known: tuple[str, ...] = FIELDS, inside: str = "") -> Fault:
    """What to tell a user who wrote the field *name*, which is none of the *known* ones.

    *inside* goes before the name: ``body.`` for a field of a body.
    """
    return Fault(
        field=inside + shown_name(name),
        rule=f"is no field of {'body' if inside else 'a line'}",
        cure=advice(name[:_MAX_GUESSED_CHARS], known) or f"use only {', '.join(known)}",
        code="unknown_parameter",
    )


@lru_cache(maxsize=256)
def advice(name: str, known: tuple[str, ...] = FIELDS) -> str:
    """What to write instead of *name*, which is none of the *known* fields; empty if unclear."""
    plain = name.lower().strip().lstrip("-").replace("-", "_")
    if plain in known:
        return f"write {plain}"
    if found := ADVICE.get(plain):
        return found
    meanings = {alias: field for alias, field in ALIASES.items() if field in known}
    meanings |= {field: field for field in known}
    if near := difflib.get_close_matches(plain, meanings, n=1, cutoff=0.75):
        return f"did you mean {meanings[near[0]]}?"
    return ""
