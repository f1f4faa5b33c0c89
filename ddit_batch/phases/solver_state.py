"""A solver's whole memory, taken out and put back.

A multistep solver (UniPC) computes each step from the ones before. Resumed with the latents and the
step number alone it raises nothing and is wrong, so *every* attribute is taken, whatever its name;
only the configuration stays behind, since a fresh solver of the same model has it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ddit_batch.errors import ArtifactError, ConfigError
from ddit_batch.phases.models.base import Solver

SolverState = dict[str, object]
"""Attribute to value: numbers, strings, None, tensors on the CPU, and collections of these."""

_CONFIG = "_internal_dict"
"""Where diffusers' ConfigMixin keeps the configuration."""


def memory(solver: Solver) -> Mapping[str, object]:
    """Everything that *solver* remembers, as it is: its next step may write to it."""
    return {key: value for key, value in vars(solver).items() if key != _CONFIG}


def snapshot(solver: Solver) -> SolverState:
    """A deep copy of everything that *solver* remembers, on the CPU.

    Raises:
        ConfigError: It remembers something that cannot be written to a checkpoint.
    """
    name = type(solver).__name__
    return {key: _copied(value, f"{name}.{key}") for key, value in memory(solver).items()}


def restore(solver: Solver, state: Mapping[str, object], device: torch.device) -> None:
    """Give *solver*, fresh and with its timesteps set, the memory *state*.

    A tensor goes to where the fresh solver has the one that it replaces (some keep their sigmas on
    the CPU on purpose), a tensor of the history to *device*. *state* itself is not shared.

    Raises:
        ArtifactError: *state* lacks something that such a solver remembers.
    """
    fresh = vars(solver)
    if missing := sorted(fresh.keys() - state.keys() - {_CONFIG}):
        raise ArtifactError(
            f"the checkpoint lacks {', '.join(missing)} of {type(solver).__name__}: it was written "
            "by another version of diffusers or is damaged; start the phase again without it"
        )
    for key, value in state.items():
        before = fresh.get(key)
        place = before.device if isinstance(before, Tensor) else device
        setattr(solver, key, _moved(value, place))


def _copied(value: object, name: str) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case list():
            return [_copied(item, name) for item in value]
        case tuple():
            return tuple(_copied(item, name) for item in value)
        case dict():
            return {key: _copied(item, name) for key, item in value.items()}
        case _:
            raise ConfigError(
                f"{name} is a {type(value).__name__}, which no checkpoint can hold: "
                "choose another solver, for example UniPCMultistepScheduler"
            )


def _moved(value: object, device: torch.device) -> object:
    match value:
        case Tensor():
            return value.to(device, copy=True)
        case list():
            return [_moved(item, device) for item in value]
        case tuple():
            return tuple(_moved(item, device) for item in value)
        case dict():
            return {key: _moved(item, device) for key, item in value.items()}
        case _:
            return value
