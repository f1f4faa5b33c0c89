"""Checkpoints: equal to the undisturbed run, or refused; never in the way of the loop."""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_model import MakeRequest, Model
from torch import Tensor

from ddit_batch.errors import ArtifactError
from ddit_batch.phases.checkpoint import Checkpoint, CheckpointWriter, from_bytes, take, to_bytes
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.encode import encode
from ddit_batch.phases.models.base import DenoisingState
from ddit_batch.request import Request

DAMAGED = re.compile("not a checkpoint|truncated or damaged")


def _after(model: Model, request: Request, steps: int) -> DenoisingState:
    """The state after so many steps."""
    state = model.start(request)
    with torch.no_grad():
        for _ in range(steps):
            state = model.denoiser.step(state)
    return state


def _finished(model: Model, request: Request, checkpoint: Checkpoint) -> Tensor:
    """The latents of *request*, resumed from *checkpoint*."""
    state = model.denoiser.resume(request, encode(model.encoder, request), checkpoint)
    return denoise(model.denoiser, state, lambda *_: Verdict.CONTINUE)[0].latents


@pytest.mark.parametrize("step", range(7))
def test_resuming_at_any_step_equals_the_undisturbed_run(
    model: Model, make_request: MakeRequest, step: int
) -> None:
    """A checkpoint that went through bytes leads to the same latents, bit for bit."""
    request = make_request()
    undisturbed = model.latents(request)

    data = to_bytes(take(_after(model, request, step)))

    assert torch.equal(_finished(model, request, from_bytes(data)), undisturbed)


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_resuming_in_bfloat16_equals_the_undisturbed_run(
    bfloat16_models: dict[str, Model], make_request: MakeRequest, solver: str
) -> None:
    """A checkpoint keeps the number formats of latents and history."""
    model, request = bfloat16_models[solver], make_request()
    undisturbed = model.latents(request)

    state = _after(model, request, 3)
    checkpoint = from_bytes(to_bytes(take(state)))

    assert checkpoint.latents.dtype == state.latents.dtype
    assert torch.equal(_finished(model, request, checkpoint), undisturbed)


def test_a_checkpoint_shares_nothing_with_the_running_loop(
    model: Model, make_request: MakeRequest
) -> None:
    """Going on after taking a checkpoint does not change the checkpoint."""
    request = make_request()
    state = _after(model, request, 3)
    checkpoint = take(state)
    before = to_bytes(checkpoint)

    with torch.no_grad():
        while not state.is_done:
            state = model.denoiser.step(state)

    assert to_bytes(checkpoint) == before
    assert torch.equal(_finished(model, request, checkpoint), state.latents)


def test_a_checkpoint_can_be_resumed_twice(model: Model, make_request: MakeRequest) -> None:
    """Resuming uses up neither the checkpoint nor its history."""
    request = make_request()
    checkpoint = take(_after(model, request, 3))

    first = _finished(model, request, checkpoint)

    assert torch.equal(_finished(model, request, checkpoint), first)


def test_a_multistep_solver_without_its_history_goes_wrong_silently(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """Negative control: latents and step number alone give other latents, and no error."""
    model, request = models["unipc"], make_request()
    whole = take(_after(model, request, 3))
    forgetful = {**whole.solver_state, "last_sample": None, "lower_order_nums": 0}

    latents = _finished(model, request, replace(whole, solver_state=forgetful))

    assert torch.isfinite(latents).all()
    assert not torch.allclose(latents, model.latents(request), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("missing", ["model_outputs", "last_sample", "sigmas", "_step_index"])
def test_a_checkpoint_that_lacks_solver_state_is_refused(
    models: dict[str, Model], make_request: MakeRequest, missing: str
) -> None:
    """Nothing of what the solver remembers may be absent."""
    model, request = models["unipc"], make_request()
    whole = take(_after(model, request, 3))
    state = {name: value for name, value in whole.solver_state.items() if name != missing}

    with pytest.raises(ArtifactError, match=f"lacks {missing}"):
        _finished(model, request, replace(whole, solver_state=state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "another request"),
        ({"prompt": "waves"}, "another request"),
        ({"width": 128}, "shape 64x64x9, the request's is 128x64x9"),
        ({"num_inference_steps": 7}, "number of steps 6, the request's is 7"),
    ],
    ids=str,
)
def test_the_checkpoint_of_another_request_is_refused(
    models: dict[str, Model], make_request: MakeRequest, change: dict[str, Any], message: str
) -> None:
    """A checkpoint continues only what it was taken from."""
    model = models["unipc"]
    checkpoint = take(_after(model, make_request(), 2))

    with pytest.raises(ArtifactError, match=message):
        _finished(model, make_request(**change), checkpoint)


def test_what_latents_do_not_depend_on_may_change(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """The name, line and frame rate of a request have no say."""
    model, request = models["unipc"], make_request()
    checkpoint = take(_after(model, request, 2))

    latents = _finished(model, make_request(custom_id="b", line=9, fps=30), checkpoint)

    assert torch.equal(latents, model.latents(request))


def test_the_checkpoint_of_another_solver_is_refused(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """A model whose solver was changed does not take up old checkpoints."""
    checkpoint = take(_after(models["unipc"], make_request(), 2))

    with pytest.raises(ArtifactError, match="solver UniPCMultistepScheduler"):
        _finished(models["euler"], make_request(), checkpoint)


def test_a_step_number_that_the_solver_denies_is_refused(
    model: Model, make_request: MakeRequest
) -> None:
    """Step and solver must tell the same story."""
    checkpoint = take(_after(model, make_request(), 2))

    with pytest.raises(ArtifactError, match="step 4 of 6 has a solver at step 2"):
        _finished(model, make_request(), replace(checkpoint, step=4))


def test_flipped_bytes_are_detected(models: dict[str, Model], make_request: MakeRequest) -> None:
    """One wrong bit, wherever it is, raises instead of giving a wrong video."""
    data = to_bytes(take(_after(models["euler"], make_request(), 2)))

    for position in range(0, len(data), 997):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ArtifactError, match=DAMAGED):
            from_bytes(bytes(damaged))


@pytest.mark.parametrize("length", [0, 10, 40, 1000, -1])
def test_truncated_bytes_are_detected(
    models: dict[str, Model], make_request: MakeRequest, length: int
) -> None:
    """A half-written checkpoint raises, wherever it ends."""
    data = to_bytes(take(_after(models["euler"], make_request(), 2)))

    with pytest.raises(ArtifactError, match=DAMAGED):
        from_bytes(data[:length])


class SlowStore:
    """A store that remembers what it got and can be held up."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, data: bytes, step: int) -> None:
        """Write, once the store is open."""
        self.entered.set()
        assert self.open.wait(10)
        assert from_bytes(data).step == step
        self.steps.append(step)


@pytest.fixture
def checkpoint(models: dict[str, Model], make_request: MakeRequest) -> Checkpoint:
    return take(_after(models["euler"], make_request(), 1))


def test_the_writer_never_blocks_and_keeps_only_the_newest(checkpoint: Checkpoint) -> None:
    """While one write hangs, offers return at once, and of those that wait the last one stays."""
    store = SlowStore()
    writer = CheckpointWriter(store)
    writer.offer(checkpoint)
    assert store.entered.wait(10)

    begun_s = time.monotonic()
    for step in range(2, 100):
        writer.offer(replace(checkpoint, step=step))
    offered_in_s = time.monotonic() - begun_s
    in_time = writer.flush(0.05)
    store.open.set()

    assert writer.flush(10)
    assert not in_time
    assert offered_in_s < 1
    assert store.steps == [1, 99]
    writer.close()


def test_a_failed_write_is_remembered_and_does_not_stop_the_writer(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """The store's error is logged and kept, and the next checkpoint is written all the same."""
    steps = []

    def write(_: bytes, step: int) -> None:
        if step == 1:
            raise OSError("disk full")
        steps.append(step)

    writer = CheckpointWriter(write)
    with caplog.at_level(logging.ERROR):
        writer.offer(checkpoint)
        is_written = writer.flush(10)
    failure = writer.failure
    writer.offer(replace(checkpoint, step=2))

    assert writer.flush(10)
    assert not is_written
    assert str(failure) == "disk full"
    assert "disk full" in caplog.text
    assert writer.failure is None
    assert steps == [2]
    writer.close()


def test_closing_drops_what_waits_and_ends_the_thread(checkpoint: Checkpoint) -> None:
    """A closed writer finishes the write at hand and begins no other."""
    store = SlowStore()
    writer = CheckpointWriter(store)
    writer.offer(checkpoint)
    assert store.entered.wait(10)
    writer.offer(replace(checkpoint, step=2))

    writer.close(timeout_s=0.01)
    store.open.set()
    writer.close()

    assert store.steps == [1]
    assert "checkpoint-writer" not in {thread.name for thread in threading.enumerate()}
