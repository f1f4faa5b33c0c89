"""What is seen in a clip: knows nothing of the model, nor of the prompt.

Works on the frames of a video file: uint8, red, green, blue. The background is what the border has;
the object is the largest connected part that differs from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from demo_model.drawing import Layout, draw
from demo_model.scenes import (
    BACKGROUND_RGB,
    RADIUS,
    RGB,
    SMALLEST,
    Background,
    Change,
    Color,
    Form,
    Rgb,
    Scene,
    Size,
)

_Word = TypeVar("_Word")

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_SEEN = 60.0
"""A pixel that is so far from the background, out of 441, belongs to the object."""
_LEAST_AREA = 0.004
"""Of the frame: less is no object."""
_GRID = 32
_MOVED = 0.06
"""Less movement than this part of the shorter side is none."""
_SMALLER = (1 + SMALLEST**2) / 2
"""An end with less than this part of the other end's area: the object grew or shrank."""
_FADED = 0.45
"""An end with less than this part of the other's contrast: the object faded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a clip shows; None where nothing can be said."""

    background: Background
    color: Color | None = None
    """At the beginning."""
    form: Form | None = None
    size: Size | None = None
    """At its largest."""
    change: Change | None = None
    into: Color | None = None
    """At the end, if it turns."""
    direction: str | None = None
    """``left``, ``right``, ``up`` or ``down``, if it moves."""

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """By attribute: whether that is what *scene* says."""
        return {
            "color": self.color is scene.color,
            "background": self.background is scene.background,
            "form": self.form is scene.form,
            "size": self.size is scene.size,
            "change": self.change is scene.change and self.into is scene.into,
        }


@dataclass(frozen=True, slots=True)
class _Look:
    """The object in one frame."""

    mask: Mask
    color: NDArray[np.float64]
    contrast: float

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def middle(self) -> tuple[float, float]:
        ys, xs = np.nonzero(self.mask)
        return float(xs.mean()), float(ys.mean())


def see(frames: Frames) -> Seen:
    """Look at a clip (F, H, W, 3)."""
    video = frames.astype(np.float64)
    border = np.concatenate(
        [video[:, 0], video[:, -1], video[:, :, 0], video[:, :, -1]], axis=1
    ).reshape(-1, 3)
    paper = np.median(border, axis=0)
    background = _nearest(paper, BACKGROUND_RGB)
    looks = [_look(frame, paper) for frame in video]
    clear = [look for look in looks if look is not None]
    if len(clear) < max(2, len(looks) // 3):
        return Seen(background=background)
    change, into = _change(looks, clear)
    first = _mean_color(clear[: max(1, len(clear) // 4)])
    return Seen(
        background=background,
        color=_nearest(first, RGB),
        form=_form(clear),
        size=_size(clear, min(video.shape[1:3])),
        change=change,
        into=into,
        direction=_direction(clear, min(video.shape[1:3])),
    )


def _look(frame: NDArray[np.float64], paper: NDArray[np.float64]) -> _Look | None:
    away = np.sqrt(((frame - paper) ** 2).sum(-1))
    parts, count = ndimage.label(away > _SEEN)
    if not count:
        return None
    areas = np.bincount(parts.ravel())[1:]
    if areas.max() < _LEAST_AREA * away.size:
        return None
    mask: Mask = parts == 1 + int(areas.argmax())
    core = away >= np.percentile(away[mask], 40)
    color = np.median(frame[mask & core], axis=0)
    # Where its edges lie does not depend on how strong its colour is.
    contrast = float(np.median(away[mask & core]))
    whole, _ = ndimage.label(away > 0.5 * contrast)
    inside = whole[mask & core]
    outline: Mask = whole == np.bincount(inside[inside > 0]).argmax()
    return _Look(outline, color, contrast)


def _change(looks: list[_Look | None], clear: list[_Look]) -> tuple[Change, Color | None]:
    """What is different between the first and the last frames."""
    some = max(1, len(looks) // 5)
    start, end = clear[:some], clear[-some:]
    gone = looks[-1] is None
    strength = _median([look.contrast for look in end]) / _median([k.contrast for k in start])
    first, last = (_nearest(_mean_color(part), RGB) for part in (start, end))
    if gone or (strength < _FADED and len(clear) < len(looks)):
        return Change.FADES, None
    area = _median([look.area for look in end]) / _median([look.area for look in start])
    if area < _SMALLER:
        return Change.SHRINKS, None
    if area > 1 / _SMALLER:
        return Change.GROWS, None
    if strength < _FADED and last is first:
        return Change.FADES, None
    if last is not first:
        return Change.TURNS, last
    return Change.NONE, None


def _form(looks: list[_Look]) -> Form:
    """The form whose outline fits best, over all frames in which the object is clear."""
    strongest = max(look.contrast for look in looks)
    votes = dict.fromkeys(Form, 0.0)
    for look in looks:
        if look.contrast < 0.5 * strongest:
            continue
        outline = _fitted(look.mask)
        for form, template in _templates().items():
            votes[form] += float((outline & template).sum() / (outline | template).sum())
    return max(votes, key=votes.__getitem__)


def _size(looks: list[_Look], side: int) -> Size:
    """The size whose area, for an average form, is nearest to the largest area."""
    strongest = max(look.contrast for look in looks)
    form = _form(looks)
    area = max(look.area for look in looks if look.contrast >= 0.5 * strongest)
    radius = (area / (_area(form) * side**2)) ** 0.5
    return min(Size, key=lambda size: abs(np.log(radius / RADIUS[size])))


def _direction(looks: list[_Look], side: int) -> str | None:
    some = max(1, len(looks) // 4)
    start, end = (
        np.mean([look.middle for look in part], axis=0) for part in (looks[:some], looks[-some:])
    )
    right, down = end - start
    if max(abs(right), abs(down)) < _MOVED * side:
        return None
    if abs(right) >= abs(down):
        return "right" if right > 0 else "left"
    return "down" if down > 0 else "up"


def _mean_color(looks: list[_Look]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean([look.color for look in looks], axis=0)
    return mean


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _nearest(color: NDArray[np.float64], table: dict[_Word, Rgb]) -> _Word:
    return min(table, key=lambda word: float(((np.array(table[word]) - color) ** 2).sum()))


def _fitted(mask: Mask) -> Mask:
    """The outline in a square box of ``_GRID``, its own box in the middle."""
    ys, xs = np.nonzero(mask)
    part = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    side = max(part.shape)
    box = np.zeros((side, side), dtype=bool)
    top, left = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
    box[top : top + part.shape[0], left : left + part.shape[1]] = part
    at = ((np.arange(_GRID) + 0.5) / _GRID * side).astype(int)
    fitted: Mask = box[at][:, at]
    return fitted


def _outline(form: Form) -> Mask:
    """A large drawing of *form* of radius 0.2."""
    scene = Scene(color=Color.RED, background=Background.BLACK, form=form, size=Size.MEDIUM)
    layout = Layout(x=0, y=0, radius=0.2, color_shift=(0, 0, 0), background_shift=0)
    _, inside = draw(scene, layout, height=256, width=256, moments=torch.zeros(1))
    mask: Mask = (inside[0, 0] > 0.5).numpy()
    return mask


@lru_cache
def _templates() -> dict[Form, Mask]:
    return {form: _fitted(_outline(form)) for form in Form}


@lru_cache
def _area(form: Form) -> float:
    """Of the form with radius 1."""
    return float(_outline(form).sum() / 256**2 / 0.2**2)
