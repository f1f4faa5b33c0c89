"""The DiT phase: the loop over denoising steps, which asks at each step boundary what to do next.

Knows no mailbox and no group: whoever calls ``denoise`` brings them in ``at_boundary``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from ddit_batch.phases.device import inference, synchronize
from ddit_batch.phases.models.base import Denoiser, DenoisingState


class Verdict(StrEnum):
    """What the loop is to do at a step boundary."""

    CONTINUE = "continue"
    """Take the next step."""
    RELEASE = "release"
    """Stop; the job goes on elsewhere, from this state."""
    CANCEL = "cancel"
    """Stop; nobody wants the video any more."""


AtBoundary = Callable[[DenoisingState, float | None], Verdict]
"""Called with the state and the seconds that the step took; None before the first step."""


def denoise(
    denoiser: Denoiser, state: DenoisingState, at_boundary: AtBoundary
) -> tuple[DenoisingState, Verdict]:
    """Step *state* until it is done or *at_boundary* says to stop.

    *at_boundary* is called before the first step and after every one, with the device idle: a group
    may change there, a checkpoint may be taken. What it or a step raises comes through; the state
    last given to *at_boundary* is still good then, and ``denoise`` may be called with it again.

    Returns:
        The newest state, and why the loop ended: CONTINUE means that all steps are done. A RELEASE
        at the last boundary comes too late, so it is returned as CONTINUE.

    Raises:
        OutOfMemory: A step does not fit on the device.
    """
    with inference(f"denoising {state.shape} ({state.latents.dtype})"):
        verdict = at_boundary(state, None)
        while verdict is Verdict.CONTINUE and not state.is_done:
            begun_s = time.perf_counter()
            state = denoiser.step(state)
            synchronize(state.latents.device)
            verdict = at_boundary(state, time.perf_counter() - begun_s)
    if verdict is Verdict.RELEASE and state.is_done:
        verdict = Verdict.CONTINUE
    return state, verdict
