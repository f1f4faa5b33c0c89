"""A device as a benchmark sees it: its name, its clock, its memory."""

from __future__ import annotations

import gc
import time
from types import TracebackType
from typing import Self

import torch

from ddit_batch.phases.device import synchronize

_GIB = 2.0**30


class Meter:
    """Seconds of a block, until the device is idle, and the most memory allocated meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._begun_s = 0.0
        self.seconds = 0.0
        self.peak_gib: float | None = None
        """None if the device is no GPU."""

    def __enter__(self) -> Self:
        synchronize(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._begun_s = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        synchronize(self._device)
        self.seconds = time.perf_counter() - self._begun_s
        if self._device.type == "cuda":
            self.peak_gib = torch.cuda.max_memory_allocated(self._device) / _GIB


def free(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """As its maker calls it, and how many there are."""
    if device.type != "cuda":
        return device.type
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
