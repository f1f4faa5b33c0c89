"""A solver's memory, out and in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from ddit_batch.errors import ConfigError
from ddit_batch.phases.models.solver import fresh
from ddit_batch.phases.solver_state import restore, snapshot

CPU = torch.device("cpu")


@pytest.fixture
def stepped() -> Any:
    """A solver after three of six steps."""
    solver = fresh(
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        steps=6,
        device=CPU,
    )
    sample = torch.ones(1, 2, 1, 2, 2)
    for timestep in solver.timesteps[:3]:
        sample = solver.step(sample, timestep, sample, return_dict=False)[0]
    return solver


def test_a_snapshot_is_a_copy(stepped: Any) -> None:
    """Later steps do not reach into it."""
    state: dict[str, Any] = snapshot(stepped)
    before = state["model_outputs"][-1].clone()

    stepped.model_outputs[-1].add_(1)

    assert torch.equal(state["model_outputs"][-1], before)


def test_everything_comes_back(stepped: Any) -> None:
    """A restored solver has every attribute of the one that was left."""
    new = fresh(stepped, steps=6, device=CPU)

    restore(new, snapshot(stepped), CPU)

    assert repr(sorted(vars(new).items())) == repr(sorted(vars(stepped).items()))


def test_a_restored_solver_shares_nothing_with_the_snapshot(stepped: Any) -> None:
    """What it does next leaves the snapshot as it is."""
    state: dict[str, Any] = snapshot(stepped)
    before = state["model_outputs"][-1].clone()
    new: Any = fresh(stepped, steps=6, device=CPU)
    restore(new, state, CPU)

    new.model_outputs[-1].add_(1)
    new.model_outputs.clear()

    assert torch.equal(state["model_outputs"][-1], before)


def test_tensors_go_to_where_the_solver_wants_them(stepped: Any) -> None:
    """The history moves to the device; sigmas, which a fresh solver has on the CPU, stay there."""
    meta = torch.device("meta")
    new: Any = fresh(stepped, steps=6, device=meta)

    restore(new, snapshot(stepped), meta)

    assert new.last_sample.device == new.timesteps.device == meta
    assert {tensor.device for tensor in new.model_outputs} == {meta}
    assert new.sigmas.device == CPU


def test_what_cannot_be_written_is_refused(stepped: Any) -> None:
    """A solver that remembers a function or the like is reported by the attribute's name."""
    stepped.noise_sampler = torch.Generator()

    with pytest.raises(ConfigError, match=r"UniPCMultistepScheduler\.noise_sampler is a Generator"):
        snapshot(stepped)
