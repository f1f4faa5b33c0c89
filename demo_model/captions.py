"""Scenes in words, as people put them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demo_model.scenes import Background, Change, Form, Scene, Size

_FORMS: dict[Form, Sequence[str]] = {
    Form.CIRCLE: ("circle", "circle", "disc", "ball", "dot"),
    Form.SQUARE: ("square", "square", "box", "block"),
    Form.TRIANGLE: ("triangle", "triangle", "pyramid"),
    Form.CROSS: ("cross", "cross", "plus", "plus sign"),
}
_SIZES: dict[Size, Sequence[str]] = {
    Size.SMALL: ("small", "small", "tiny", "little"),
    Size.MEDIUM: ("", "", "medium", "medium-sized"),
    Size.LARGE: ("large", "large", "big", "huge"),
}
_BACKGROUNDS: dict[Background, Sequence[str]] = {
    Background.BLACK: ("black", "black", "dark"),
    Background.GRAY: ("gray", "grey"),
    Background.WHITE: ("white", "white", "bright"),
}
_CHANGES: dict[Change, Sequence[str]] = {
    Change.NONE: ("", "", "standing still", "that stays as it is", "that does not move"),
    Change.GROWS: ("grows", "gets bigger", "expands", "becomes larger", "growing", "that grows"),
    Change.SHRINKS: ("shrinks", "gets smaller", "becomes smaller", "shrinking", "that shrinks"),
    Change.FADES: (
        "fades away",
        "fades out",
        "disappears",
        "vanishes",
        "fading",
        "that fades away",
    ),
    Change.TURNS: ("turns", "becomes", "changes to", "turning", "that turns", "fading into"),
}
_PLACES = (" on a {} background", " on {}", ", {} background", " over a {} background",
           " in front of a {} wall", " against a {} backdrop")  # fmt: skip
_OPENERS = ("", "", "", "", "", "a video of ", "a clip of ", "an animation of ", "there is ",
            "show me ", "please make ", "we see ")  # fmt: skip
_CLOSERS = ("", "", "", "", "", "", ", simple animation", ", minimal style", ", slowly",
            " slowly and smoothly", ", high quality", ", 4k")  # fmt: skip


def plain(scene: Scene) -> str:
    """The shortest wording that says all."""
    size = "" if scene.size is Size.MEDIUM else f"{scene.size} "
    what = f"a {size}{scene.color} {scene.form}"
    match scene.change:
        case Change.NONE:
            does = ""
        case Change.FADES:
            does = " fades away"
        case Change.TURNS:
            does = f" turns {scene.into}"
        case _:
            does = f" {scene.change}"
    return f"{what}{does} on a {scene.background} background"


def reworded(scene: Scene, dice: np.random.Generator) -> str:
    """One of many wordings; each says all that *scene* says."""

    def pick(words: Sequence[str]) -> str:
        return words[int(dice.integers(len(words)))]

    words = [pick(_SIZES[scene.size]), str(scene.color)]
    if dice.random() < 0.1:
        words.reverse()
    article = pick(("a", "a", "a", "the", "one", ""))
    what = " ".join(word for word in (article, *words, pick(_FORMS[scene.form])) if word)
    does = pick(_CHANGES[scene.change])
    if scene.into is not None:
        does = f"{does} {scene.into}"
        if dice.random() < 0.25:
            does = f"{pick(('turns', 'changes', 'goes'))} from {scene.color} to {scene.into}"
    where = pick(_PLACES).format(pick(_BACKGROUNDS[scene.background]))
    does = f" {does}" if does else ""
    order = dice.random()
    if order < 0.65:
        sentence = f"{what}{does}{where}"
    elif order < 0.9:
        sentence = f"{what}{where}{does}"
    else:
        sentence = f"{where.strip(' ,')}, {what}{does}"
    sentence = pick(_OPENERS) + sentence + pick(_CLOSERS)
    if dice.random() < 0.3:
        sentence = sentence[0].upper() + sentence[1:] + "."
    return sentence


def caption(scene: Scene, dice: np.random.Generator) -> str:
    """What training reads: half plain, half reworded."""
    return plain(scene) if dice.random() < 0.5 else reworded(scene, dice)
