"""The checker is right on clips that are drawn, before and after they were an mp4 file."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ddit_batch.phases.mp4 import encode_mp4
from demo_model.checker import see
from demo_model.contact_sheet import read_frames
from demo_model.drawing import Layout, draw, moments_of, random_layout
from demo_model.scenes import Background, Change, Color, Form, Scene, Size, sample

CLIPS = 100
RED_CIRCLE = Scene(color=Color.RED, background=Background.GRAY, form=Form.CIRCLE, size=Size.MEDIUM)
MIDDLE = Layout(x=0, y=0, radius=0.24, color_shift=(0, 0, 0), background_shift=0)

Frames = NDArray[np.uint8]


def drawn(scene: Scene, layout: Layout, *, side: int = 64, frames: int = 9) -> Frames:
    clip, _ = draw(scene, layout, height=side, width=side, moments=moments_of(frames))
    pixels: Frames = ((clip + 1) * 127.5).round().byte().permute(1, 2, 3, 0).numpy()
    return pixels


def as_file(frames: Frames, folder: Path) -> Frames:
    file = folder / "clip.mp4"
    file.write_bytes(encode_mp4(frames, 8))
    return read_frames(file)


def mistakes(side: int, frames: int, seen_as: Callable[[Frames], Frames]) -> Counter[str]:
    dice = np.random.default_rng(side + frames)
    wrong: Counter[str] = Counter()
    for number in range(CLIPS):
        scene = sample(dice, held_out=bool(number % 2))
        clip = drawn(scene, random_layout(scene, dice), side=side, frames=frames)
        wrong.update(name for name, ok in see(seen_as(clip)).agrees(scene).items() if not ok)
    return wrong


@pytest.mark.parametrize(("side", "frames"), [(64, 9), (128, 17)])
def test_checker_is_right_on_what_was_drawn(side: int, frames: int) -> None:
    """Every attribute, in 99 of 100 clips at least."""
    assert all(count <= CLIPS // 100 for count in mistakes(side, frames, lambda c: c).values())


def test_checker_is_right_on_files(tmp_path: Path) -> None:
    """A file has lost some colour, and every attribute is still right in 99 of 100 clips."""
    wrong = mistakes(64, 9, lambda clip: as_file(clip, tmp_path))

    assert all(count <= CLIPS // 100 for count in wrong.values()), wrong


@pytest.mark.parametrize(
    ("right", "down", "direction"),
    [(1, 0, "right"), (-1, 0, "left"), (0, 1, "down"), (0, -1, "up"), (0, 0, None)],
)
def test_checker_sees_where_an_object_moves(right: int, down: int, direction: str | None) -> None:
    steps = np.linspace(-0.1, 0.1, 9)
    clip = np.concatenate(
        [drawn(RED_CIRCLE, replace(MIDDLE, x=right * at, y=down * at), frames=1) for at in steps]
    )

    assert see(clip).direction == direction


def test_wrong_clips_are_not_said_to_be_right() -> None:
    """One attribute wrong, one attribute named; nothing there, nothing but the background right."""
    clip = drawn(RED_CIRCLE, MIDDLE)
    others = {
        "color": replace(RED_CIRCLE, color=Color.BLUE),
        "background": replace(RED_CIRCLE, background=Background.WHITE),
        "form": replace(RED_CIRCLE, form=Form.CROSS),
        "size": replace(RED_CIRCLE, size=Size.LARGE),
        "change": replace(RED_CIRCLE, change=Change.GROWS),
    }

    for name, other in others.items():
        assert [wrong for wrong, ok in see(clip).agrees(other).items() if not ok] == [name]
    empty = see(np.full((9, 64, 64, 3), 122, dtype=np.uint8)).agrees(RED_CIRCLE)
    assert [name for name, ok in empty.items() if ok] == ["background"]
