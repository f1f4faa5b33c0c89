"""Loading the solver that a pipeline names, and finding out at once whether it suits us.

A solver must take one call of the transformer a step, draw no random numbers after the start (a
resumed run could not draw the same ones), and remember only what a checkpoint can hold. What cannot
work is refused when the worker starts, not at step 17 of a video.
"""

from __future__ import annotations

from pathlib import Path

import diffusers
import torch

from ddit_batch.errors import ConfigError
from ddit_batch.phases.models.base import Solver
from ddit_batch.phases.solver_state import snapshot

_TRIAL_STEPS = 4


def load_solver(class_name: str, source: str | Path, revision: str | None) -> Solver:
    """The pipeline's solver, tried out. Use ``fresh`` to get one for a request.

    Raises:
        ConfigError: diffusers has no such class, or it does not suit.
    """
    solver_class = getattr(diffusers, class_name, None)
    if solver_class is None:
        raise ConfigError(
            f"{source} names the solver {class_name}, which diffusers {diffusers.__version__} "
            "does not have"
        )
    solver: Solver = solver_class.from_pretrained(source, subfolder="scheduler", revision=revision)
    _try_out(solver)
    return solver


def fresh(solver: Solver, *, steps: int, device: torch.device) -> Solver:
    """A new solver configured as *solver* is, ready for the first of *steps* steps on *device*."""
    new: Solver = type(solver).from_config(solver.config)  # type: ignore[attr-defined]  # diffusers' ConfigMixin
    new.set_timesteps(steps, device=device)
    new.set_begin_index(0)
    return new


def _try_out(solver: Solver) -> None:
    """Take a few steps on a scrap of latents.

    Raises:
        ConfigError: *solver* does not suit; the message says why.
    """
    name = type(solver).__name__
    sample = torch.zeros(1, 1, 1, 2, 2)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.get_rng_state()
        try:
            trial = fresh(solver, steps=_TRIAL_STEPS, device=sample.device)
            calls = len(trial.timesteps)
            for timestep in trial.timesteps:
                sample = trial.step(sample + 1, timestep, sample, return_dict=False)[0]
        except (AttributeError, TypeError, ValueError) as exc:
            raise ConfigError(f"the solver {name} does not work as configured: {exc}") from exc
        is_random = not torch.equal(before, torch.get_rng_state())
    if calls != _TRIAL_STEPS:
        raise ConfigError(
            f"the solver {name} makes {calls} calls for {_TRIAL_STEPS} steps, not 1 each"
        )
    if is_random:
        raise ConfigError(
            f"the solver {name} draws random numbers while it steps, so that a resumed video would "
            "differ: choose a deterministic one, for example UniPCMultistepScheduler"
        )
    snapshot(trial)
