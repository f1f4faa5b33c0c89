"""The prompts of ``examples/shapes.jsonl``, and what each video should show.

``python -m demo_model.examples`` writes the file; a test holds the two together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from demo_model.scenes import Background, Change, Color, Form, Scene, Size

FILE = Path(__file__).parent.parent / "examples" / "shapes.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line."""

    prompt: str
    scene: Scene
    side: int = 64
    frames: int = 9

    @property
    def custom_id(self) -> str:
        """Colour, form and change."""
        scene = self.scene
        change = "" if scene.change is Change.NONE else f"-{scene.change}"
        return f"{scene.size}-{scene.color}-{scene.form}{change}-{self.side}x{self.frames}"

    def line(self) -> str:
        """The line of the file; the model's default shape goes without saying."""
        fields: dict[str, object] = {"custom_id": self.custom_id, "prompt": self.prompt}
        if (self.side, self.frames) != (64, 9):
            fields |= {"height": self.side, "width": self.side, "num_frames": self.frames}
        return json.dumps(fields)


def _scene(words: str) -> Scene:
    """``large red circle black grows``; what it turns into stands behind ``turns``."""
    size, color, form, background, *rest = words.split()
    change = Change(rest[0]) if rest else Change.NONE
    return Scene(
        size=Size(size),
        color=Color(color),
        form=Form(form),
        background=Background(background),
        change=change,
        into=Color(rest[1]) if change is Change.TURNS else None,
    )


_TINY, _LONG, _WIDE, _TALL, _HUGE = (64, 9), (64, 17), (128, 9), (128, 17), (256, 17)
_LINES: tuple[tuple[tuple[int, int], str, str], ...] = (
    (_TINY, "large red circle black", "a large red circle on a black background"),
    (_TINY, "medium blue square white", "a blue square on a white background"),
    (_TINY, "large green triangle gray", "A big green triangle against a gray backdrop."),
    (_TINY, "large yellow cross black", "show me a large yellow cross on black"),
    (_TINY, "medium cyan circle black grows", "a cyan ball gets bigger on a dark background"),
    (_TINY, "large purple square gray shrinks",
     "a large purple square shrinks on a gray background"),
    (_TINY, "medium red triangle white fades", "a red triangle fades away on a white background"),
    (_TINY, "large yellow circle gray turns red",
     "a big yellow circle turns red on a gray background"),
    (_TINY, "medium purple circle white fades", "A purple disc vanishes on a white background."),
    (_TINY, "large blue circle gray grows",
     "an animation of a large blue circle that grows on gray"),
    (_TINY, "medium green square black turns blue",
     "a green box changes to blue on a black background"),
    (_TINY, "large cyan triangle white shrinks", "a huge cyan triangle gets smaller on white"),
    (_LONG, "large green circle white", "there is a large green ball on a white background"),
    (_LONG, "medium yellow square black grows", "a yellow square expands on a black background"),
    (_LONG, "large red square gray fades", "a large red square fades out over a gray background"),
    (_LONG, "large purple triangle black shrinks",
     "a clip of a large purple triangle that shrinks on black"),
    (_LONG, "medium cyan circle gray turns purple",
     "a cyan circle turns purple on a gray background"),
    (_LONG, "large blue cross white", "a big blue plus sign on a white background"),
    (_WIDE, "large yellow triangle gray", "a large yellow triangle on a gray background"),
    (_WIDE, "small red circle white grows", "a tiny red dot grows on a white background"),
    (_WIDE, "medium green cross black", "a green cross in front of a black wall"),
    (_WIDE, "large blue square black fades", "a large blue block disappears on black"),
    (_WIDE, "medium red cross gray turns yellow", "a red cross turns yellow on a gray background"),
    (_TALL, "large cyan square white shrinks", "a big cyan square shrinks on a white background"),
    (_TALL, "medium purple cross white", "a medium-sized purple cross on a white background"),
    (_TALL, "large red triangle black grows", "a large red pyramid becomes larger on black"),
    (_TALL, "small blue circle gray", "a small blue circle on a gray background"),
    (_TALL, "large green circle black turns cyan",
     "please make a large green circle that turns cyan on a black background"),
    (_HUGE, "large red circle white fades", "a large red circle fades away on a white background"),
    (_HUGE, "medium yellow square gray", "a yellow square on a grey background, high quality"),
    (_HUGE, "large purple triangle black turns green",
     "a huge purple triangle turns green on a black background"),
)  # fmt: skip


def examples() -> list[Example]:
    """All lines, in order."""
    return [
        Example(prompt=prompt, scene=_scene(words), side=side, frames=frames)
        for (side, frames), words, prompt in _LINES
    ]


def file_text() -> str:
    """The file."""
    return "".join(f"{example.line()}\n" for example in examples())


if __name__ == "__main__":
    FILE.write_text(file_text(), "utf-8")
