"""The VAE phase: latents to frames. ``mp4.py`` makes a file of them."""

from __future__ import annotations

from torch import Tensor

from ddit_batch.phases.device import inference
from ddit_batch.phases.models.base import Decoder, Frames


def decode(decoder: Decoder, latents: Tensor) -> Frames:
    """The frames (F, H, W, 3) of *latents* (1, C, F', H/8, W/8).

    Raises:
        OutOfMemory: The video does not fit on the device.
    """
    size = "x".join(str(length) for length in latents.shape)
    with inference(f"decoding latents of {size}"):
        return decoder.decode(latents)
