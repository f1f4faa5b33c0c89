"""Devices: names, and memory that runs out."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor

from ddit_batch.errors import ConfigError, OutOfMemory
from ddit_batch.phases import vae
from ddit_batch.phases.device import fitting, inference, pick_device, set_threads
from ddit_batch.phases.models.base import Frames


def test_an_empty_name_means_the_best_device_here() -> None:
    """The first GPU if there is one, else the CPU."""
    wanted = "cuda:0" if torch.cuda.is_available() else "cpu"

    assert pick_device("") == torch.device(wanted)


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_a_config_error(name: str) -> None:
    """Unknown names and missing GPUs are reported by name."""
    with pytest.raises(ConfigError, match=f"device '{name}'"):
        pick_device(name)


def test_zero_threads_leave_torch_alone() -> None:
    """0 means torch's own choice."""
    before = torch.get_num_threads()

    set_threads(0)

    assert torch.get_num_threads() == before


def test_memory_of_the_failed_call_is_freed_while_the_error_lives() -> None:
    """The error's traceback does not keep the tensors of what failed alive."""
    seen = []

    def allocate() -> None:
        big = torch.zeros(1000)
        seen.append(weakref.ref(big))
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(OutOfMemory) as caught, inference("a test"):
        allocate()

    assert caught.value.__cause__ is not None
    assert seen[0]() is None


REQUESTS = {
    "torch on the CPU": (lambda: torch.empty(10**14, dtype=torch.uint8), "100000000000000 bytes"),
    "Python": (lambda: bytearray(10**15), "the memory of this process on the CPU"),
    "numpy": (lambda: np.empty(10**14, np.uint8), "the memory of this process on the CPU"),
}


@pytest.mark.parametrize("who", REQUESTS)
def test_a_memory_that_is_full_is_said_in_the_same_words(who: str) -> None:
    """Whoever asks for what is not there: a real allocation fails, and what was asked is named."""
    allocate, said = REQUESTS[who]

    with pytest.raises(OutOfMemory) as caught, fitting("a video of 64x64x9"):
        allocate()

    assert str(caught.value).startswith("a video of 64x64x9 does not fit into the memory of this")
    assert said in str(caught.value)


def test_a_gpu_that_is_full_is_named() -> None:
    """By the number that torch gives it, with what it was asked for."""
    said = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 3 has a total capacity of 79.11 GiB"

    with (
        pytest.raises(OutOfMemory, match=r"GPU 3 \(tried to allocate 2\.50 GiB\): use a smaller"),
        fitting("it"),
    ):
        raise torch.OutOfMemoryError(said)


def test_other_errors_stay_what_they_are() -> None:
    """A RuntimeError that is not about memory comes through."""
    with pytest.raises(RuntimeError, match="size of tensor"), inference("it"):
        torch.zeros(2) + torch.zeros(3)


class HungryDecoder:
    """A decoder for which everything is too big."""

    def decode(self, latents: Tensor) -> Frames:
        """Fail."""
        raise torch.OutOfMemoryError(f"no room for {latents.numel()}")


def test_the_decoder_reports_the_size_that_did_not_fit() -> None:
    """Out of memory in the VAE phase names the latents."""
    with pytest.raises(OutOfMemory, match="decoding latents of 1x16x3x8x8"):
        vae.decode(HungryDecoder(), torch.zeros(1, 16, 3, 8, 8))
