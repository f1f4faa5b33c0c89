"""What one plain call of diffusers' own ``WanPipeline`` shows for a line of these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanPipeline

from ddit_batch.phases.models.base import Frames
from ddit_batch.phases.mp4 import encode_mp4


class PlainPipeline:
    """A pipeline in a folder, called as diffusers' documentation calls it."""

    def __init__(self, folder: Path, *, max_sequence_length: int) -> None:
        torch.set_num_threads(1)  # as the workers of these tests have
        self._pipeline: Any = WanPipeline.from_pretrained(folder, dtype=torch.float32)
        self._pipeline.set_progress_bar_config(disable=True)
        self._max_sequence_length = max_sequence_length

    def show(self, line: dict[str, Any]) -> tuple[Frames, bytes]:
        """The frames (F, H, W, 3) of the JSON object *line*, and an mp4 file of them."""
        images = self._pipeline(
            prompt=line["prompt"],
            negative_prompt=line.get("negative_prompt", ""),
            height=line["height"],
            width=line["width"],
            num_frames=line["num_frames"],
            num_inference_steps=line["num_inference_steps"],
            guidance_scale=line["guidance_scale"],
            generator=torch.Generator("cpu").manual_seed(line["seed"]),
            max_sequence_length=self._max_sequence_length,
            output_type="pil",
        ).frames[0]
        frames = np.stack([np.asarray(image) for image in images])
        return frames, encode_mp4(frames, line["fps"])
