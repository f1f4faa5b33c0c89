"""The device that a phase runs on, and the rules under which it runs there.

The one place that translates what a full memory raises into ours: CUDA's error, the plain
RuntimeError of torch's allocator on the CPU, and Python's MemoryError.
"""

from __future__ import annotations

import gc
import re
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


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether *exc* says that a device, or the machine, has not enough memory."""
    if isinstance(exc, (torch.OutOfMemoryError, MemoryError)):
        return True
    # On the CPU torch raises a RuntimeError that only its words tell from any other.
    return isinstance(exc, RuntimeError) and "DefaultCPUAllocator" in str(exc)


def free_memory() -> None:
    """Give back what nothing refers to any more, so that the next work finds it free."""
    gc.collect()
    if torch.cuda.is_available():  # else there is no cache
        torch.cuda.empty_cache()


@contextmanager
def inference(what: str) -> Iterator[None]:
    """Run the block without gradients; *what* names it in the error, with its shape.

    Gradient mode belongs to the thread, so this must be entered in the thread that computes.

    Raises:
        OutOfMemory: As ``fitting`` does.
    """
    with fitting(what), torch.no_grad():
        yield


@contextmanager
def fitting(what: str) -> Iterator[None]:
    """Have a memory that is full said in our words; *what* needs it, and names its shape.

    Raises:
        OutOfMemory: The device has not enough memory; what the calls in the block held is freed.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        traceback.clear_frames(exc.__traceback__)  # they would keep their tensors alive
        free_memory()
        raise OutOfMemory(
            f"{what} does not fit into {_memory_of(exc)}{_asked(exc)}: use a smaller size or fewer "
            "frames, a smaller dtype in the model config, or "
            f"{_MORE[isinstance(exc, torch.OutOfMemoryError)]}"
        ) from exc


_MORE = {True: "a GPU with more memory", False: "a machine with more memory"}


def _memory_of(exc: BaseException) -> str:
    """Whose memory it was."""
    if not isinstance(exc, torch.OutOfMemoryError):
        return "the memory of this process on the CPU"
    gpu = re.search(r"GPU (\d+)", str(exc))
    return f"the memory of GPU {gpu[1]}" if gpu else "the memory of this GPU"


def _asked(exc: BaseException) -> str:
    """What was asked of it, as far as *exc* says: in torch's words, which name the bytes."""
    said = re.search(r"tried to allocate (\d[\d.]* ?\w+)", str(exc), re.IGNORECASE)
    return f" (tried to allocate {said[1]})" if said else ""
