"""Checkpoints: a job between two steps, as a value and as bytes, and a thread that writes them.

A checkpoint has the latents and the solver's whole memory, on the CPU, so that it resumes on any
device and at any dop. It says what it was taken from, so that a wrong one is refused, and carries a
digest, so that a damaged one is. Where the bytes are kept is the caller's business.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ddit_batch.errors import ArtifactError, StorageFailed
from ddit_batch.job import Shape
from ddit_batch.phases import solver_state
from ddit_batch.phases.models.base import DenoisingState
from ddit_batch.phases.solver_state import SolverState

logger = logging.getLogger(__name__)

_MAGIC = b"ddit-checkpoint-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """A copy of a ``DenoisingState`` without what its request gives anyway."""

    latents: Tensor
    """(1, C, F', H/8, W/8) on the CPU, in the dtype that the loop had."""
    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    shape: Shape
    digest: str
    """``request_digest`` of the request."""
    solver: str
    """Class name of the solver."""
    solver_state: SolverState


def take(state: DenoisingState) -> Checkpoint:
    """A checkpoint of *state*, which shares nothing with it: the loop may go on at once."""
    return Checkpoint(
        latents=state.latents.detach().to("cpu", copy=True),
        step=state.step,
        steps=state.steps,
        shape=state.shape,
        digest=state.digest,
        solver=type(state.solver).__name__,
        solver_state=solver_state.snapshot(state.solver),
    )


def restore(checkpoint: Checkpoint, start: DenoisingState) -> DenoisingState:
    """The state that *checkpoint* was taken from; *start* is its request before the first step.

    Uses the solver of *start* up.

    Raises:
        ArtifactError: The checkpoint is of another request or solver, or contradicts itself.
    """
    _require_same("shape", checkpoint.shape, start.shape)
    _require_same("number of steps", checkpoint.steps, start.steps)
    _require_same("solver", checkpoint.solver, type(start.solver).__name__)
    _require_same("latents of shape", checkpoint.latents.shape, start.latents.shape)
    _require_same("request with digest", checkpoint.digest[:12], start.digest[:12])
    device = start.latents.device
    solver_state.restore(start.solver, checkpoint.solver_state, device)
    solver_step = getattr(start.solver, "step_index", None) or 0
    if not checkpoint.step == solver_step <= checkpoint.steps:
        raise ArtifactError(
            f"the checkpoint of step {checkpoint.step} of {checkpoint.steps} has a solver at step "
            f"{solver_step}: start the phase again without it"
        )
    latents = checkpoint.latents.to(device, copy=True)
    return replace(start, latents=latents, step=checkpoint.step)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """*checkpoint* behind a header that detects truncated and flipped bytes."""
    buffer = io.BytesIO()
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    shape = checkpoint.shape
    torch.save({**values, "shape": (shape.height, shape.width, shape.num_frames)}, buffer)
    payload = buffer.getvalue()
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def from_bytes(data: bytes) -> Checkpoint:
    """The inverse of ``to_bytes``; runs no code that *data* could bring along.

    Raises:
        ArtifactError: These are not the whole, unchanged bytes of a checkpoint.
    """
    digest, payload = data[len(_MAGIC) :][:_DIGEST_BYTES], data[len(_MAGIC) + _DIGEST_BYTES :]
    if not data.startswith(_MAGIC):
        raise ArtifactError(f"not a checkpoint: {len(data)} bytes without its header")
    if hashlib.sha256(payload).digest() != digest:
        raise ArtifactError(f"the checkpoint of {len(data)} bytes is truncated or damaged")
    try:
        values = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        return Checkpoint(**{**values, "shape": Shape(*values["shape"])})
    except (pickle.UnpicklingError, RuntimeError, TypeError, KeyError) as exc:
        raise ArtifactError(f"the checkpoint was written by another version: {exc}") from exc


class CheckpointWriter:
    """Writes checkpoints in a thread of its own, so that the step loop never waits for a disk.

    *write* gets the bytes and the step. It should make its write visible at once or not at all;
    what it raises is logged and kept in ``failure``, since a job can do without its checkpoint.
    """

    def __init__(self, write: Callable[[bytes, int], None]) -> None:
        self._write = write
        self._changed = threading.Condition()
        self._pending: Checkpoint | None = None
        self._writing = False
        self._closed = False
        self._failure: Exception | None = None
        self._written_step = -1
        self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    @property
    def failure(self) -> Exception | None:
        """What the latest write raised; None if it succeeded."""
        return self._failure

    @property
    def written_step(self) -> int:
        """The step of the newest checkpoint that is written; -1 before the first."""
        return self._written_step

    def offer(self, checkpoint: Checkpoint) -> None:
        """Have *checkpoint* written soon. It replaces one that waits; never blocks."""
        with self._changed:
            assert not self._closed, "a closed writer was offered a checkpoint"
            self._pending = checkpoint
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until the newest checkpoint is written; False if it failed or took longer."""
        with self._changed:
            is_idle = self._changed.wait_for(
                lambda: self._pending is None and not self._writing, timeout_s
            )
            return is_idle and self._failure is None

    def wait_for(self, step: int, timeout_s: float) -> bool:
        """Wait until a checkpoint of *step* or a later one is written, or a write has failed.

        False: neither has happened in *timeout_s*.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self._written_step >= step or self._failure is not None, timeout_s
            )

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread. Drops what waits; gives a write that has begun *timeout_s* to finish."""
        with self._changed:
            self._closed = True
            self._pending = None
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (checkpoint := self._next()) is not None:
            begun_s = time.monotonic()
            failure: Exception | None = None
            try:
                self._write(to_bytes(checkpoint), checkpoint.step)
            except StorageFailed as exc:
                logger.warning(
                    "checkpoint of step %s was not written: %s",
                    checkpoint.step,
                    exc,
                    extra={"action": "checkpoint_failed", "step": checkpoint.step},
                )
                failure = exc
            except Exception as exc:  # whatever the store raises, the thread must live on
                logger.exception(
                    "checkpoint of step %s was not written",
                    checkpoint.step,
                    extra={"action": "checkpoint_failed", "step": checkpoint.step},
                )
                failure = exc
            else:
                logger.debug(
                    "checkpoint of step %s written in %.3f s",
                    checkpoint.step,
                    time.monotonic() - begun_s,
                    extra={"action": "checkpoint_written", "step": checkpoint.step},
                )
            with self._changed:
                self._writing, self._failure = False, failure
                if failure is None:
                    self._written_step = checkpoint.step
                self._changed.notify_all()

    def _next(self) -> Checkpoint | None:
        """Wait for a checkpoint and take it; None when the writer was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._pending is not None)
            checkpoint, self._pending = self._pending, None
            self._writing = checkpoint is not None
            return checkpoint


def _require_same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ArtifactError(
            f"the checkpoint is of a {what} {found}, the request's is {wanted}: "
            "it belongs to another request; start the phase again without it"
        )
