"""The video file: the same bytes for the same frames, and playable."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.models.base import Frames
from ddit_batch.phases.mp4 import VideoInfo, encode_mp4, probe_mp4


@pytest.fixture(scope="module")
def frames() -> Frames:
    """A bright square that moves over a gradient, 17 frames of 96x64."""
    video = np.zeros((17, 64, 96, 3), dtype=np.uint8)
    video[..., 0] = np.linspace(0, 255, 96, dtype=np.uint8)
    video[..., 2] = 40
    for number, picture in enumerate(video):
        picture[20:40, number * 4 : number * 4 + 20] = (250, 200, 30)
    return video


@pytest.fixture(scope="module")
def video(frames: Frames) -> bytes:
    return encode_mp4(frames, 8)


def test_the_same_frames_give_the_same_bytes(frames: Frames, video: bytes) -> None:
    """No time, name or version of the moment gets into the file."""
    assert encode_mp4(frames.copy(), 8) == video


def test_a_video_is_what_was_asked_for(video: bytes) -> None:
    """Size, number of frames, rate and codec are found by decoding."""
    assert probe_mp4(video) == VideoInfo(width=96, height=64, num_frames=17, fps=8.0, codec="h264")


def test_one_frame_is_a_video(frames: Frames) -> None:
    """The shortest request works."""
    assert probe_mp4(encode_mp4(frames[:1], 16)).num_frames == 1


def test_the_index_comes_before_the_data(video: bytes) -> None:
    """A browser can begin to play before it has the whole file."""
    assert 0 < video.index(b"moov") < video.index(b"mdat")


def test_every_player_knows_the_format(video: bytes) -> None:
    """4:2:0 with BT.709 said in the file."""
    with av.open(io.BytesIO(video)) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert context.colorspace == context.color_primaries == context.color_trc == 1


def test_the_pixels_survive(frames: Frames, video: bytes) -> None:
    """Decoding gives the frames back but for small losses."""
    with av.open(io.BytesIO(video)) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    assert np.abs(np.stack(found).astype(int) - frames).mean() < 6


@pytest.mark.parametrize("length", [0, 100, 600, -200])
def test_a_damaged_video_is_an_error(video: bytes, length: int) -> None:
    """What cannot be decoded to the end is not called a video."""
    with pytest.raises(ArtifactError, match="cannot be decoded"):
        probe_mp4(video[:length])
