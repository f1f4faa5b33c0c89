"""The state of a job, from the leader to the other members of a group.

Three broadcasts: how long the other two are; a header in JSON with everything but the numbers of
the tensors; and the tensors, end to end as bytes, on the group's device.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from ddit_batch.errors import PhaseError
from ddit_batch.job import Shape
from ddit_batch.phases import solver_state
from ddit_batch.phases.models.base import Denoiser, DenoisingState, Embeddings
from ddit_batch.phases.sequence_parallel.group import SPGroup

_ALIGNMENT_BYTES = 16
"""Each tensor begins at a multiple of this, so that its bytes can be read as any number."""


def send_state(group: SPGroup, state: DenoisingState) -> None:
    """Give *state* to the others of *group*. For the leader.

    Raises:
        GroupBroken: One of them is gone.
    """
    tensors = Tensors()
    content = {
        "latents": state.latents,
        "prompt": state.embeddings.prompt,
        "negative": state.embeddings.negative,
        "step": state.step,
        "steps": state.steps,
        "guidance_scale": state.guidance_scale,
        "shape": (state.shape.height, state.shape.width, state.shape.num_frames),
        "digest": state.digest,
        "solver": type(state.solver).__name__,
        "solver_memory": solver_state.memory(state.solver),
    }
    header = json.dumps(encoded(content, tensors)).encode()
    payload = tensors.joined(group.device)
    group.broadcast(torch.tensor([len(header), len(payload)], dtype=torch.int64))
    group.broadcast(torch.frombuffer(bytearray(header), dtype=torch.uint8))
    group.broadcast(payload)


def receive_state(group: SPGroup, denoiser: Denoiser) -> DenoisingState:
    """What the leader of *group* sends, for *denoiser* to go on with. For everybody else.

    Raises:
        GroupBroken: A member is gone.
        PhaseError: The leader has another solver.
    """
    sizes = group.broadcast(torch.zeros(2, dtype=torch.int64))
    header = group.broadcast(torch.empty(int(sizes[0]), dtype=torch.uint8))
    payload = torch.empty(int(sizes[1]), dtype=torch.uint8, device=group.device)
    group.broadcast(payload)
    content = decoded(json.loads(header.numpy().tobytes()), payload)
    solver = denoiser.new_solver(content["steps"])
    if (name := type(solver).__name__) != content["solver"]:
        raise PhaseError(
            f"the leader {group.members[0]} steps with the solver {content['solver']}, this worker "
            f"with {name}: give both the same model"
        )
    solver_state.restore(solver, content["solver_memory"], group.device)
    return DenoisingState(
        latents=content["latents"],
        step=content["step"],
        steps=content["steps"],
        solver=solver,
        embeddings=Embeddings(prompt=content["prompt"], negative=content["negative"]),
        guidance_scale=content["guidance_scale"],
        shape=Shape(*content["shape"]),
        digest=content["digest"],
    )


class Tensors:
    """Tensors on their way into one run of bytes."""

    def __init__(self) -> None:
        self._placed: list[tuple[int, Tensor]] = []
        self._end_bytes = 0

    def add(self, tensor: Tensor) -> dict[str, Any]:
        """Where *tensor* will be, and as what it is to be read."""
        start_bytes, aligned = self._end_bytes, -(-tensor.nbytes // _ALIGNMENT_BYTES)
        self._placed.append((start_bytes, tensor))
        self._end_bytes += aligned * _ALIGNMENT_BYTES
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"tensor": [dtype, list(tensor.shape), start_bytes]}

    def joined(self, device: torch.device) -> Tensor:
        """(bytes,) uint8 on *device*."""
        payload = torch.empty(self._end_bytes, dtype=torch.uint8, device=device)
        for start_bytes, tensor in self._placed:
            raw = tensor.detach().contiguous().flatten().view(torch.uint8)
            payload[start_bytes : start_bytes + len(raw)] = raw
        return payload


def encoded(value: object, tensors: Tensors) -> object:
    """*value* as JSON: an object for whatever JSON has no word for."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            return tensors.add(value)
        case list():
            return [encoded(item, tensors) for item in value]
        case tuple():
            return {"tuple": [encoded(item, tensors) for item in value]}
        case dict():
            items = [[encoded(key, tensors), encoded(item, tensors)] for key, item in value.items()]
            return {"dict": items}
        case _:
            raise AssertionError(f"solver_state.memory let a {type(value).__name__} pass")


def decoded(value: Any, payload: Tensor) -> Any:
    """The inverse of ``encoded``; tensors share nothing with *payload*."""
    match value:
        case {"tensor": [dtype, shape, start_bytes]}:
            number_format: torch.dtype = getattr(torch, dtype)
            length_bytes = math.prod(shape) * number_format.itemsize
            raw = payload[start_bytes : start_bytes + length_bytes]
            return raw.view(number_format).view(shape).clone()
        case {"tuple": items}:
            return tuple(decoded(item, payload) for item in items)
        case {"dict": items}:
            return {decoded(key, payload): decoded(item, payload) for key, item in items}
        case list():
            return [decoded(item, payload) for item in value]
        case _:
            return value
