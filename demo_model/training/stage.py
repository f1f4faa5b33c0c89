"""What the stages share: schedules by step, moving averages, a checkpoint to go on from."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo_model.training.muon import Muon

SAVE_EVERY_S = 120.0
LOG_EVERY = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate by step: up, level, down to nearly nothing."""

    steps: int
    rate: float
    warm_up: int = 50
    level: float = 0.4
    """Part of the steps before it falls."""

    def at(self, step: int) -> float:
        """The rate of *step*, which counts from 0."""
        done = step / self.steps
        falls = 1.0 if done < self.level else max(0.01, (1 - done) / (1 - self.level))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * falls


@dataclass(slots=True, kw_only=True)
class Trainer:
    """Steps named parameters: matrices by Muon, the rest by AdamW; keeps their moving average."""

    schedule: Schedule
    parameters: Sequence[Tensor]
    matrices: Sequence[Tensor]
    average: float
    file: Path
    """Where the state is kept, to go on after a stop."""
    is_chief: bool = True
    """Whether it is this process that writes."""
    step: int = 0
    _muon: Muon = field(init=False)
    _adam: torch.optim.AdamW = field(init=False)
    _means: list[Tensor] = field(init=False)
    _saved: float = field(init=False)
    _told: dict[str, list[float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        matrices = {id(one) for one in self.matrices}
        rest = [one for one in self.parameters if id(one) not in matrices]
        self._muon = Muon(self.matrices)
        self._adam = torch.optim.AdamW(
            rest, lr=self.schedule.rate, betas=(0.9, 0.98), weight_decay=0
        )
        self._means = [one.detach().clone() for one in self.parameters]
        self._saved = time.monotonic()
        if self.file.is_file():
            self._restore()

    @property
    def is_done(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.schedule.steps

    def take(self, **told: float) -> None:
        """One step by the gradients that are there; *told* is for the log."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        rate = self.schedule.at(self.step)
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._muon.step(rate)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for one in self.matrices:
            one.grad = None
        self.step += 1
        keep = min(self.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._means, [one.detach() for one in self.parameters], 1 - keep)
        for name, value in told.items():
            self._told.setdefault(name, []).append(value)
        if self.step % LOG_EVERY == 0:
            self._log()
        if self.is_chief and (self.is_done or time.monotonic() - self._saved > SAVE_EVERY_S):
            self._save()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their averages; once more to have them back."""
        for one, mean in zip(self.parameters, self._means, strict=True):
            kept = one.detach().clone()
            one.copy_(mean)
            mean.copy_(kept)

    def _log(self) -> None:
        if self.is_chief:
            means = {name: round(sum(v) / len(v), 4) for name, v in sorted(self._told.items())}
            print(json.dumps({"step": self.step, **means}), flush=True)
        self._told = {}

    def _save(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "parameters": [one.detach() for one in self.parameters],
            "means": self._means,
            "muon": self._muon.state(),
            "adam": self._adam.state_dict(),
        }
        scratch = self.file.with_suffix(".new")
        torch.save(state, scratch)
        scratch.replace(self.file)
        self._saved = time.monotonic()

    @torch.no_grad()
    def _restore(self) -> None:
        state = torch.load(self.file, weights_only=True, map_location=self.parameters[0].device)
        self.step = state["step"]
        for one, kept in zip(self.parameters, state["parameters"], strict=True):
            one.copy_(kept)
        self._means = state["means"]
        self._muon.restore(state["muon"])
        self._adam.load_state_dict(state["adam"])


def prepare(seed: int) -> torch.device:
    """Where to train: the first GPU if there is one.

    On a processor one thread each: for models as small as these two are no faster.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(seed)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
