"""The device that a phase runs on, and the rules under which it runs there.

The one place that translates torch's out-of-memory into ours.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ddit_batch.errors import ConfigError, OutOfMemory


def pick_device(name: str) -> torch.device:
    """The device called *name*; empty means the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the name, or this machine has no such device.
    """
    if not name:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise ConfigError(f"device {name!r} is unknown: write cpu, cuda or cuda:<number>") from exc
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r} is not here: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; check DDIT_DEVICE and CUDA_VISIBLE_DEVICES"
        )
    return device


def set_threads(count: int) -> None:
    """Let this process's torch use *count* CPU threads; 0 leaves torch's own choice."""
    if count:
        torch.set_num_threads(count)


def synchronize(device: torch.device) -> None:
    """Wait until *device* has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def inference(what: str) -> Iterator[None]:
    """Run the block without gradients; *what* names it in the error, with its shape.

    Gradient mode belongs to the thread, so this must be entered in the thread that computes.

    Raises:
        OutOfMemory: The device has not enough memory; what the calls in the block held is freed.
    """
    try:
        with torch.no_grad():
            yield
    except torch.OutOfMemoryError as exc:
        traceback.clear_frames(exc.__traceback__)  # they would keep their tensors alive
        torch.cuda.empty_cache()
        raise OutOfMemory(
            f"{what} does not fit into this device's memory: use a smaller size or fewer frames, "
            f"a smaller dtype in the model config, or a GPU with more memory ({exc})"
        ) from exc
