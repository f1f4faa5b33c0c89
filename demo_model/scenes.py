"""What can be said of a clip.

A clip shows one object near the middle of a plain background. It has a colour, a shape and a size,
and one of five things happens to it. Combinations of colour, background, shape and size that
``is_held_out`` names are never trained on: they are for the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import numpy as np

Rgb = tuple[int, int, int]


class Color(StrEnum):
    """Of the object."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"
    CYAN = "cyan"
    BLUE = "blue"
    PURPLE = "purple"


class Background(StrEnum):
    """The colour of everything else."""

    BLACK = "black"
    GRAY = "gray"
    WHITE = "white"


class Form(StrEnum):
    """The shape of the object; the word shape means height, width and frames in this project."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    CROSS = "cross"


class Size(StrEnum):
    """Of the object: beside the frame, not in pixels."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Change(StrEnum):
    """What happens from the first frame to the last."""

    NONE = "none"
    GROWS = "grows"
    SHRINKS = "shrinks"
    FADES = "fades"
    TURNS = "turns"
    """Into another colour."""


RGB: dict[Color, Rgb] = {
    Color.RED: (225, 40, 40),
    Color.YELLOW: (240, 220, 45),
    Color.GREEN: (35, 175, 60),
    Color.CYAN: (45, 210, 225),
    Color.BLUE: (45, 75, 230),
    Color.PURPLE: (160, 50, 200),
}
BACKGROUND_RGB: dict[Background, Rgb] = {
    Background.BLACK: (16, 16, 18),
    Background.GRAY: (122, 122, 126),
    Background.WHITE: (236, 236, 238),
}
RADIUS: dict[Size, float] = {Size.SMALL: 0.15, Size.MEDIUM: 0.24, Size.LARGE: 0.36}
"""Half the height of a square of the same name, over the shorter side of the frame."""
SMALLEST = 0.5
"""A growing object starts at this part of its size; a shrinking one ends there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One clip in words."""

    color: Color
    background: Background
    form: Form
    size: Size
    change: Change = Change.NONE
    into: Color | None = None
    """The last colour of an object that turns; else None."""


def is_held_out(scene: Scene) -> bool:
    """Whether the combination is kept from training: one in six.

    Every colour, background, form and size is held out equally often, and every pair of them is
    seen: a model that ignores one of the four scores chance on what is held out.
    """
    places = (
        list(Color).index(scene.color),
        list(Form).index(scene.form),
        2 * list(Size).index(scene.size),
        3 * list(Background).index(scene.background),
    )
    return sum(places) % len(Color) == 0


def every_combination() -> list[Scene]:
    """All of colour, background, form and size, without change."""
    return [
        Scene(color=color, background=background, form=form, size=size)
        for color, background, form, size in product(Color, Background, Form, Size)
    ]


def sample(dice: np.random.Generator, *, held_out: bool) -> Scene:
    """A random scene; each change is as likely as another."""
    known = [scene for scene in every_combination() if is_held_out(scene) is held_out]
    scene = known[int(dice.integers(len(known)))]
    change = list(Change)[int(dice.integers(len(Change)))]
    into = None
    if change is Change.TURNS:
        others = [color for color in Color if color is not scene.color]
        into = others[int(dice.integers(len(others)))]
    return Scene(
        color=scene.color,
        background=scene.background,
        form=scene.form,
        size=scene.size,
        change=change,
        into=into,
    )
