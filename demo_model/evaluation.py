"""``python -m demo_model.evaluation PIPELINE``: how often a clip shows what its prompt says.

200 prompts whose combinations of colour, background, form and size were never trained on, in the
plainest and in other wordings by turns, at each trained shape; the checker looks at the frames.
Beside each figure stands what a model scores that ignores the attribute.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline

from demo_model.captions import plain, reworded
from demo_model.checker import Frames, see
from demo_model.scenes import Background, Change, Color, Form, Scene, Size, sample

STEPS = 12
GUIDANCE = 4.0
LENGTH = 32
_AT_ONCE_PX = 16 * 64 * 64 * 9
CHANCE = {
    "color": 1 / len(Color),
    "background": 1 / len(Background),
    "form": 1 / len(Form),
    "size": 1 / len(Size),
    **{change.value: 1 / len(Change) for change in Change},
    Change.TURNS.value: 1 / len(Change) / (len(Color) - 1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip that was made, and what it should show."""

    scene: Scene
    caption: str
    frames: Frames


def scenes_held_out(count: int, seed: int = 0) -> list[Scene]:
    """Scenes with combinations that were never trained on; every change equally often."""
    dice = np.random.default_rng((7, seed))
    found: dict[Change, list[Scene]] = defaultdict(list)
    each = -(-count // len(Change))
    while any(len(found[change]) < each for change in Change):
        scene = sample(dice, held_out=True)
        if len(found[scene.change]) < each:
            found[scene.change].append(scene)
    return [scene for group in zip(*found.values(), strict=True) for scene in group][:count]


def clips(
    pipeline: WanPipeline,
    scenes: Sequence[Scene],
    *,
    side: int,
    frames: int,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Iterator[Clip]:
    """Make them, some at once."""
    dice = np.random.default_rng(8)
    captions = [
        plain(scene) if number % 2 else reworded(scene, dice) for number, scene in enumerate(scenes)
    ]
    at_once = max(1, _AT_ONCE_PX // (side * side * frames))
    for first in range(0, len(scenes), at_once):
        some = captions[first : first + at_once]
        made = pipeline(
            prompt=some,
            negative_prompt=[""] * len(some),
            height=side,
            width=side,
            num_frames=frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=LENGTH,
            generator=[torch.Generator().manual_seed(first + n) for n in range(len(some))],
        ).frames
        for scene, caption, one in zip(scenes[first:], some, made, strict=False):
            yield Clip(scene=scene, caption=caption, frames=(one * 255).round().astype(np.uint8))


def score(made: Sequence[Clip]) -> dict[str, float]:
    """The part of the clips that is right, by attribute, and by change among those that have it."""
    right: dict[str, list[bool]] = defaultdict(list)
    for clip in made:
        agreed = see(clip.frames).agrees(clip.scene)
        for name in ("color", "background", "form", "size"):
            right[name].append(agreed[name])
        right[clip.scene.change.value].append(agreed["change"])
    return {name: round(sum(found) / len(found), 3) for name, found in right.items()}


def main() -> None:
    """Print a JSON object: shape to attribute to figure."""
    parser = argparse.ArgumentParser(description="Check a pipeline on held-out prompts.")
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--shapes", default="64x9,64x17,128x9,128x17,256x17", help="side x frames")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--out", type=Path, help="a file for the figures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = WanPipeline.from_pretrained(given.pipeline, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    figures: dict[str, dict[str, float]] = {"chance": CHANCE}
    scenes = scenes_held_out(given.count)
    for shape in given.shapes.split(","):
        side, frames = map(int, shape.split("x"))
        made = list(
            clips(
                pipeline,
                scenes,
                side=side,
                frames=frames,
                steps=given.steps,
                guidance=given.guidance,
            )
        )
        figures[f"{side}x{side}x{frames}"] = score(made)
        print(f"{side}x{side}x{frames}", json.dumps(score(made)), flush=True)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
