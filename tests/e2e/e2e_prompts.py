"""The requests of these tests: few and fixed, so that one undisturbed run is the reference of all.

Two solvers, four shapes, with and without guidance; two jobs long enough to be caught at work.
"""

from __future__ import annotations

import json
from pathlib import Path

EULER = "euler"
"""Name of the model, and of its folder, that these tests build beside the builtin ``tiny-wan``."""


def _line(custom_id: str, model: str, prompt: str, **fields: object) -> dict[str, object]:
    return {"custom_id": custom_id, "model": model, "prompt": prompt, "fps": 8, **fields}


def _size(height: int, width: int, num_frames: int) -> dict[str, object]:
    return {"height": height, "width": width, "num_frames": num_frames}


LINES = {
    str(line["custom_id"]): line
    for line in (
        _line(
            "fox",
            "tiny-wan",
            "a red fox runs over fresh snow",
            negative_prompt="blurry, low quality",
            num_inference_steps=12,
            guidance_scale=5.0,
            seed=11,
            **_size(64, 64, 9),
        ),
        _line(
            "tram",
            "tiny-wan",
            "an old tram turns a corner",
            num_inference_steps=8,
            guidance_scale=1.0,
            seed=12,
            **_size(96, 64, 17),
        ),
        _line(
            "waves",
            EULER,
            "waves break on black rocks, seen from above",
            negative_prompt="people",
            num_inference_steps=10,
            guidance_scale=4.0,
            seed=13,
            **_size(64, 112, 9),
        ),
        _line(
            "snow",
            EULER,
            "snow falls into an empty street",
            num_inference_steps=8,
            guidance_scale=1.0,
            seed=14,
            **_size(80, 128, 13),
        ),
        _line(
            "long",
            "tiny-wan",
            "a candle burns down",
            negative_prompt="wind",
            num_inference_steps=100,
            guidance_scale=5.0,
            seed=15,
            **_size(128, 128, 17),
        ),
        _line(
            "long-euler",
            EULER,
            "a glacier moves",
            num_inference_steps=100,
            guidance_scale=3.0,
            seed=16,
            **_size(128, 128, 17),
        ),
    )
}
ALL = tuple(LINES)

DEMO = "shapes"
"""The model that is shipped."""
TINY_CP, EULER_CP = "tiny-wan-cp", "euler-cp"
"""The same models under diffusers' context parallelism, where the others have xfuser's."""


GROUPED_STEPS = 160
"""Longer than any script of the tests."""


def _grouped(custom_id: str, model: str, seed: int, **size: object) -> dict[str, object]:
    return _line(
        custom_id,
        model,
        f"{custom_id}, by many hands",
        negative_prompt="few",
        num_inference_steps=GROUPED_STEPS,
        guidance_scale=3.0,
        seed=seed,
        **size,
    )


_GROUPED = (
    # 27 tokens: no dop divides them
    _grouped("odd-usp", "tiny-wan", 21, **_size(48, 48, 9)),
    _grouped("unipc-cp", TINY_CP, 22, **_size(64, 64, 9)),
    _grouped("euler-usp", EULER, 23, **_size(64, 64, 9)),
    _grouped("euler-cp", EULER_CP, 24, **_size(64, 64, 9)),
)
LINES |= {str(line["custom_id"]): line for line in _GROUPED}
GROUPED = tuple(str(line["custom_id"]) for line in _GROUPED)
"""Jobs for groups: both backends, both solvers, and a number of tokens that divides by nothing."""

_SQUARES = tuple(
    _line(
        f"square-{i}",
        "tiny-wan",
        f"square number {i}",
        num_inference_steps=12,
        guidance_scale=1.0,
        seed=30 + i,
        **_size(80, 80, 9),
    )
    for i in range(20)
)
LINES |= {str(line["custom_id"]): line for line in _SQUARES}
SQUARES = tuple(str(line["custom_id"]) for line in _SQUARES)
"""Jobs of a shape that no other test has."""

BIG = "big"
"""A job whose frames take a hundred times the memory of those of the others."""
LINES[BIG] = _line(
    BIG,
    "tiny-wan",
    "a wall, painted white",
    num_inference_steps=1,
    guidance_scale=1.0,
    seed=41,
    **_size(512, 512, 33),
)

GROUP_TIMEOUT_S = 3.0
"""How long a member of a group waits for another in these tests."""
STORE_PATIENCE_S = 0.5
"""How long a worker tries a store that fails again in these tests."""
SHORT = ("fox", "tram", "waves", "snow")


def write_prompts(path: Path, *custom_ids: str, prefix: str = "") -> Path:
    """Write the lines of *custom_ids* to the file *path*.

    A *prefix* of the ids makes it a file that is not in the cluster yet.
    """
    lines = [{**LINES[name], "custom_id": prefix + name} for name in custom_ids]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
