"""The denoising loop at its step boundaries."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import cast

import pytest
import torch
from tiny_model import MakeRequest, Model

from ddit_batch.errors import OutOfMemory
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.models.base import Denoiser, DenoisingState


class Boundary:
    """Says CONTINUE until a step, then something else; remembers what it was told."""

    def __init__(self, until: int = 99, then: Verdict = Verdict.RELEASE) -> None:
        self._until, self._then = until, then
        self.steps: list[int] = []
        self.times_s: list[float | None] = []

    def __call__(self, state: DenoisingState, step_s: float | None) -> Verdict:
        """Answer at a boundary."""
        self.steps.append(state.step)
        self.times_s.append(step_s)
        return Verdict.CONTINUE if state.step < self._until else self._then


def test_every_boundary_is_announced_once(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """The callback sees the state before the first step and after every one, with its time."""
    model, boundary = models["unipc"], Boundary()

    state, verdict = denoise(model.denoiser, model.start(make_request()), boundary)

    assert verdict is Verdict.CONTINUE
    assert state.is_done
    assert boundary.steps == [0, 1, 2, 3, 4, 5, 6]
    assert boundary.times_s[0] is None
    assert all(step_s and step_s > 0 for step_s in boundary.times_s[1:])


@pytest.mark.parametrize("verdict", [Verdict.RELEASE, Verdict.CANCEL])
@pytest.mark.parametrize("step", [0, 3])
def test_the_loop_stops_at_the_boundary_that_says_so(
    models: dict[str, Model], make_request: MakeRequest, verdict: Verdict, step: int
) -> None:
    """Release and cancel end the loop there and then, with the state of that boundary."""
    model, boundary = models["unipc"], Boundary(step, verdict)

    state, found = denoise(model.denoiser, model.start(make_request()), boundary)

    assert (state.step, found) == (step, verdict)
    assert boundary.steps == list(range(step + 1))


def test_a_released_state_goes_on_to_the_same_end(model: Model, make_request: MakeRequest) -> None:
    """Stopping at a boundary and going on with the state changes nothing."""
    request = make_request()
    state, _ = denoise(model.denoiser, model.start(request), Boundary(2))

    state, verdict = denoise(model.denoiser, state, Boundary())

    assert verdict is Verdict.CONTINUE
    assert torch.equal(state.latents, model.latents(request))


def test_a_release_after_the_last_step_comes_too_late(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """There is nothing left to release; a cancel is still heard."""
    model = models["unipc"]

    _, released = denoise(model.denoiser, model.start(make_request()), Boundary(6))
    _, cancelled = denoise(model.denoiser, model.start(make_request()), Boundary(6, Verdict.CANCEL))

    assert released is Verdict.CONTINUE
    assert cancelled is Verdict.CANCEL


def test_no_gradients_are_kept_in_whatever_thread_it_runs(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """Gradient mode belongs to the thread; the loop turns it off in its own."""
    model, seen = models["unipc"], []

    def run() -> None:
        state, _ = denoise(model.denoiser, model.start(make_request()), Boundary())
        seen.append((state.latents.requires_grad, torch.is_grad_enabled()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [(False, True)]


class Hungry:
    """A denoiser that runs out of memory at its second step."""

    def step(self, state: DenoisingState) -> DenoisingState:
        """Succeed once."""
        if state.step == 1:
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")
        return replace(state, step=state.step + 1)


def test_running_out_of_memory_names_the_shape_and_the_cure(
    models: dict[str, Model], make_request: MakeRequest
) -> None:
    """The error of torch becomes ours, which the job's failure shows to the user."""
    state = models["unipc"].start(make_request())

    with pytest.raises(
        OutOfMemory, match=r"denoising 64x64x9 .* allocate 80 GiB\): use a smaller size"
    ):
        denoise(cast("Denoiser", Hungry()), state, Boundary())
