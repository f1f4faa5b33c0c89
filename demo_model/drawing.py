"""Scenes as frames: flat colours, soft edges of one pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demo_model.scenes import (
    BACKGROUND_RGB,
    RADIUS,
    RGB,
    SMALLEST,
    Change,
    Form,
    Scene,
)

JITTER = 0.08
"""The centre is so far from the middle at most, over the shorter side."""
SIZE_JITTER = 0.05
COLOR_JITTER = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the words leave open; lengths over the shorter side of the frame."""

    x: float
    y: float
    radius: float
    color_shift: tuple[float, float, float]
    """Added to the object's colour, out of 255."""
    background_shift: float


def random_layout(scene: Scene, dice: np.random.Generator) -> Layout:
    """A layout of *scene*."""
    shift = dice.uniform(-COLOR_JITTER, COLOR_JITTER, 3)
    return Layout(
        x=float(dice.uniform(-JITTER, JITTER)),
        y=float(dice.uniform(-JITTER, JITTER)),
        radius=RADIUS[scene.size] * float(dice.uniform(1 - SIZE_JITTER, 1 + SIZE_JITTER)),
        color_shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        background_shift=float(dice.uniform(-COLOR_JITTER, COLOR_JITTER)),
    )


def draw(
    scene: Scene, layout: Layout, *, height: int, width: int, moments: Tensor
) -> tuple[Tensor, Tensor]:
    """The frames of *scene* at *moments* (F,), from 0 at its beginning to 1 at its end.

    Returns frames (3, F, H, W) from -1 to 1, and how much of each pixel is object (1, F, H, W).
    """
    side = min(height, width)
    xs = (torch.arange(width) + 0.5 - width / 2) - layout.x * side
    ys = (torch.arange(height) + 0.5 - height / 2) - layout.y * side
    radius = layout.radius * side * _growth(scene.change, moments)
    distance = _distance(scene.form, xs.view(1, 1, -1), ys.view(1, -1, 1), radius.view(-1, 1, 1))
    inside = (0.5 - distance).clamp(0, 1)[None]
    if scene.change is Change.FADES:
        inside = inside * (1.0 - moments.view(1, -1, 1, 1))
    shift = torch.tensor(layout.color_shift).view(3, 1, 1, 1)
    ink = _rgb(RGB[scene.color])
    if scene.into is not None:
        ink = torch.lerp(ink, _rgb(RGB[scene.into]), moments.view(1, -1, 1, 1))
    ink = (ink + shift).clamp(0, 255)
    paper = (_rgb(BACKGROUND_RGB[scene.background]) + layout.background_shift).clamp(0, 255)
    return (torch.lerp(paper, ink, inside) / 127.5 - 1.0), inside


def moments_of(frames: int, *, every: int = 1) -> Tensor:
    """The moments of *frames* frames, or of every so many of them, the first included."""
    return torch.arange(0, frames, every) / max(frames - 1, 1)


def _growth(change: Change, moments: Tensor) -> Tensor:
    match change:
        case Change.GROWS:
            return SMALLEST + (1 - SMALLEST) * moments
        case Change.SHRINKS:
            return 1 - (1 - SMALLEST) * moments
        case _:
            return torch.ones_like(moments)


def _rgb(color: tuple[int, int, int]) -> Tensor:
    return torch.tensor(color, dtype=torch.float32).view(3, 1, 1, 1)


def _distance(form: Form, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """How far each pixel is outside of the form, in pixels; negative inside. Equal areas, about."""
    across, along = x.abs(), y.abs()
    match form:
        case Form.CIRCLE:
            return (x * x + y * y).sqrt() - 1.08 * radius
        case Form.SQUARE:
            return torch.maximum(across, along) - 0.96 * radius
        case Form.TRIANGLE:
            base = y - 0.85 * radius
            return torch.maximum(base, 0.88 * across - 0.47 * y - 0.72 * radius)
        case Form.CROSS:
            bar = 0.42 * radius
            tip = 1.25 * radius
            return torch.minimum(
                torch.maximum(across - tip, along - bar), torch.maximum(across - bar, along - tip)
            )
