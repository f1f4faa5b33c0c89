"""A request: one validated line of a prompt file. The value only; ``prompt_file.py`` reads files.

Pure. The field names are the parameter names of diffusers' video pipelines (``height`` and
``width`` in pixels, ``num_frames``, ...): they are what users write and what the phases pass on,
so they are not renamed on the way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from ddit_batch.job import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one line asks for, complete: every default has been filled in."""

    custom_id: str
    """The user's name for the line, unique in its batch; the video is named for it."""
    line: int
    """Line number in the file, from 1."""
    model: str
    """Name of a model config."""
    prompt: str
    negative_prompt: str
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    """Classifier-free guidance is used above 1."""
    seed: int
    """0 ... 2**32 - 1; derived from content and line when the user gave none."""
    fps: int
    """Frames per second of the mp4 file."""
    priority: int = 0
    """Higher goes first."""
    metadata: tuple[tuple[str, str], ...] = ()
    """The user's own pairs, sorted by key, handed back unread."""

    @property
    def shape(self) -> Shape:
        """What a step of this request costs depends on this."""
        return Shape(self.height, self.width, self.num_frames)

    def to_json(self) -> dict[str, object]:
        """A JSON object with the fields' own names; ``metadata`` as an object."""
        fields = dataclasses.asdict(self)
        fields["metadata"] = dict(self.metadata)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> Request:
        """The inverse of ``to_json``."""
        metadata = fields["metadata"]
        assert isinstance(metadata, Mapping)
        return cls(**{**fields, "metadata": tuple(sorted(metadata.items()))})  # type: ignore[arg-type]  # written by to_json


def derive_seed(*, line: int, content: Mapping[str, object]) -> int:
    """A seed for a line that has none: the same line in the same place gives the same video.

    *content* is the line as parsed. Returns 32 bits of its SHA-256 with the line number.
    """
    text = json.dumps([line, content], sort_keys=True, ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
