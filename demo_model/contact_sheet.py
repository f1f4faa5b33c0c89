"""``python -m demo_model.contact_sheet FOLDER``: one page that shows all videos of a folder.

A row for each video: its name, its prompt, and frames from first to last. The page holds its
pictures and needs nothing else. Prompts come from the manifests beside the videos.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHOWN = 5
"""Frames of each video."""
HEIGHT_PX = 96
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px sans-serif; margin: 2em; }}
td {{ padding: 4px 12px 4px 0; border-bottom: 1px solid #ddd; }}
img {{ display: block; image-rendering: pixelated; }}
small {{ color: #777; }}
</style>
<h1>{title}</h1>
<table>
{rows}
</table>
</html>
"""
_ROW = """<tr><td><img alt="" src="data:image/png;base64,{picture}"></td>
<td>{prompt}<br><small>{name}, {shape}</small></td></tr>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One row."""

    name: str
    prompt: str
    frames: NDArray[np.uint8]
    """(F, H, W, 3)."""


def read_frames(file: Path) -> NDArray[np.uint8]:
    """All frames (F, H, W, 3) of a video file."""
    with av.open(str(file)) as opened:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)])


def videos_in(folder: Path) -> list[Video]:
    """The videos of *folder* that have a manifest, by name."""
    found = []
    for file in sorted(folder.glob("*.mp4")):
        manifest = file.with_suffix(".json")
        if manifest.is_file():
            prompt = json.loads(manifest.read_text("utf-8"))["request"]["prompt"]
            found.append(Video(name=file.stem, prompt=prompt, frames=read_frames(file)))
    return found


def page(videos: Sequence[Video], *, title: str) -> str:
    """The page as HTML."""
    rows = "\n".join(
        _ROW.format(
            picture=_strip(video.frames),
            prompt=html.escape(video.prompt),
            name=html.escape(video.name),
            shape="{1}x{2}x{0}".format(*video.frames.shape),
        )
        for video in videos
    )
    return _PAGE.format(title=html.escape(title), rows=rows)


def _strip(frames: NDArray[np.uint8]) -> str:
    """Some frames side by side, as a PNG in base64."""
    shown = frames[np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)]
    height, width = shown.shape[1:3]
    size = (max(1, round(width * HEIGHT_PX / height)), HEIGHT_PX)
    scaled = [np.asarray(Image.fromarray(frame).resize(size)) for frame in shown]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(scaled, axis=1)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Write the page into the folder."""
    parser = argparse.ArgumentParser(description="One page that shows all videos of a folder.")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    videos = videos_in(given.folder)
    if not videos:
        parser.error(f"{given.folder} has no videos with manifests")
    file = given.folder / "contact_sheet.html"
    file.write_text(page(videos, title=f"{len(videos)} videos"), "utf-8")
    print(file)


if __name__ == "__main__":
    main()
