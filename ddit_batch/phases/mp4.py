"""Frames to an mp4 file, and what is in one. H.264 by PyAV: the same frames, the same bytes."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.models.base import Frames

_BT709 = 1
"""In the numbers of ISO/IEC 23091-2, for primaries, transfer and matrix alike."""

_ENCODER = {
    "preset": "medium",
    "crf": "18",
    "threads": "1",
    "flags": "+bitexact",
    "x264-params": "cpu-independent=1",
}
"""One thread and no choice by CPU type: the bytes depend on the frames and the libraries only."""

_CONTAINER = {"movflags": "+faststart", "fflags": "+bitexact"}
"""The index stands before the data, for playing over a network; no library version is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What is really in a video file."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    num_frames: int
    fps: float
    codec: str


def encode_mp4(frames: Frames, fps: int) -> bytes:
    """An mp4 file of *frames* (F, H, W, 3), H and W even: H.264, yuv420p, BT.709."""
    with tempfile.TemporaryDirectory(prefix="ddit-mp4-") as folder:  # faststart reads it back
        path = Path(folder) / "video.mp4"
        with av.open(path, "w", options=_CONTAINER) as container:
            stream = container.add_stream("libx264", rate=fps, options=_ENCODER)
            _, stream.height, stream.width, _ = frames.shape
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            context.color_range = ColorRange.MPEG
            for pixels in frames:
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709
                )
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
        return path.read_bytes()


def probe_mp4(data: bytes) -> VideoInfo:
    """What *data* shows when it is decoded to its last frame.

    Raises:
        ArtifactError: It cannot be decoded.
    """
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            num_frames = sum(1 for _ in container.decode(stream))
            return VideoInfo(
                width=stream.width,
                height=stream.height,
                num_frames=num_frames,
                fps=float(stream.average_rate or 0),
                codec=stream.codec_context.name,
            )
    except (av.FFmpegError, IndexError) as exc:
        raise ArtifactError(f"the video of {len(data)} bytes cannot be decoded: {exc}") from exc
