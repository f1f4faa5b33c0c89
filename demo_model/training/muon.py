"""Muon (Jordan and others, 2024) in float32: momentum, orthogonalised, for matrices and kernels.

``torch.optim.Muon`` computes in bfloat16, for which many processors have no instructions. The
Newton-Schulz coefficients of each round are rounded from Polar Express (Amsel and others, 2025);
the update is scaled to the size of AdamW's (Liu and others, 2025).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_ROUNDS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
)
_MOMENTUM = 0.95
_DECAY = 0.01
_ADAM_SIZE = 0.2


class Muon:
    """An optimizer for parameters of two dimensions or more; those of one size go together."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._groups: dict[tuple[int, int], list[Tensor]] = {}
        for parameter in parameters:
            size = (parameter.shape[0], parameter[0].numel())
            self._groups.setdefault(size, []).append(parameter)
        self._momenta = {
            size: torch.zeros(len(group), *size, device=group[0].device)
            for size, group in self._groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient."""
        for size, group in self._groups.items():
            gradient = torch.stack(
                [
                    torch.zeros(size, device=one.device)
                    if one.grad is None
                    else one.grad.reshape(size)
                    for one in group
                ]
            )
            momentum = self._momenta[size].lerp_(gradient, 1 - _MOMENTUM)
            moves = orthogonal(gradient.lerp(momentum, _MOMENTUM))
            scale = _ADAM_SIZE * max(size) ** 0.5
            for parameter, move in zip(group, moves, strict=True):
                parameter.mul_(1 - rate * _DECAY)
                parameter.add_(move.reshape(parameter.shape), alpha=-rate * scale)

    def state(self) -> list[Tensor]:
        """What ``restore`` takes."""
        return list(self._momenta.values())

    def restore(self, state: list[Tensor]) -> None:
        """Go on from *state*."""
        self._momenta = dict(zip(self._groups, state, strict=True))


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices (N, A, B) with orthogonal rows or columns, roughly."""
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if is_tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.01 + 1e-7)
    for a, b, c in _ROUNDS:
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * (square @ square)) @ x
    found: Tensor = x.transpose(1, 2) if is_tall else x
    return found
