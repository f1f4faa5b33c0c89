"""Devices: names, and memory that runs out."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from ddit_batch.errors import ConfigError, OutOfMemory
from ddit_batch.phases import vae
from ddit_batch.phases.device import inference, pick_device, set_threads
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


class HungryDecoder:
    """A decoder for which everything is too big."""

    def decode(self, latents: Tensor) -> Frames:
        """Fail."""
        raise torch.OutOfMemoryError(f"no room for {latents.numel()}")


def test_the_decoder_reports_the_size_that_did_not_fit() -> None:
    """Out of memory in the VAE phase names the latents."""
    with pytest.raises(OutOfMemory, match="decoding latents of 1x16x3x8x8"):
        vae.decode(HungryDecoder(), torch.zeros(1, 16, 3, 8, 8))
