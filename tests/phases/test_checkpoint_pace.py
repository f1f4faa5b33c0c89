"""A lost worker costs at most so many steps, and a store that is quick enough holds up nobody."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import MakeRequest, Model

from ddit_batch.errors import StorageFailed
from ddit_batch.job import JobId
from ddit_batch.phases.checkpoint import CheckpointWriter
from ddit_batch.phases.models.base import DenoisingState
from workers.checkpoint_pace import CheckpointPace, must_be_written, steps_between

STEPS = 12


@given(at_most=st.integers(1, 50), step=st.integers(0, 500))
def test_what_must_be_written_was_offered(at_most: int, step: int) -> None:
    """Else the loop would wait for a checkpoint that nobody has begun."""
    newest_offer = step // steps_between(at_most) * steps_between(at_most)

    assert must_be_written(step, at_most) <= newest_offer
    assert steps_between(at_most) <= at_most


class Store:
    """Takes its time for each write, and knows what it has."""

    def __init__(self, delays_s: list[float], *, fails: bool = False) -> None:
        self._delays_s = delays_s
        self._fails = fails
        self.written = 0

    def __call__(self, data: bytes, step: int) -> None:
        """Write."""
        assert data
        time.sleep(self._delays_s[step % len(self._delays_s)])
        if self._fails:
            raise StorageFailed("full")
        self.written = step


@pytest.fixture(scope="module")
def states(models: dict[str, Model], make_request: MakeRequest) -> list[DenoisingState]:
    """A job at each of its step boundaries."""
    model = models["euler"]
    state = model.start(make_request(num_inference_steps=STEPS))
    found = [state]
    with torch.no_grad():
        while not state.is_done:
            state = model.denoiser.step(state)
            found.append(state)
    return found


def run(
    states: list[DenoisingState],
    store: Store,
    *,
    at_most: int,
    patience_s: float = 10.0,
    stop: threading.Event | None = None,
) -> tuple[int, float]:
    """Go through all boundaries; how many steps were at stake at worst, and the seconds."""
    worst, begun_s = 0, time.monotonic()
    with closing(CheckpointWriter(store)) as writer:
        pace = CheckpointPace(
            writer,
            JobId("b0-000001"),
            at_most=at_most,
            patience_s=patience_s,
            stop=stop or threading.Event(),
        )
        for state, after in pairwise(states):
            pace.at_boundary(state)
            worst = max(worst, after.step - max(states[0].step, store.written))
    return worst, time.monotonic() - begun_s


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    at_most=st.integers(1, 8),
    delays_ms=st.lists(st.integers(0, 15), min_size=1, max_size=5),
    begun_at=st.integers(0, 5),
)
def test_no_more_steps_are_at_stake_than_allowed(
    states: list[DenoisingState], at_most: int, delays_ms: list[int], begun_at: int
) -> None:
    """However long the writes take beside the steps, and wherever the attempt began."""
    store = Store([delay / 1000 for delay in delays_ms])

    worst, _ = run(states[begun_at:], store, at_most=at_most)

    assert worst <= at_most


def test_one_slow_write_is_waited_for_once(
    states: list[DenoisingState], caplog: pytest.LogCaptureFixture
) -> None:
    """After the patience the loop goes on, and waits no more for that write."""
    _, seconds = run(states, Store([2.0]), at_most=2, patience_s=0.3)

    assert 0.3 <= seconds < 1.9 + 5.0
    assert caplog.text.count("goes on without a checkpoint") == 1


def test_store_that_fails_holds_up_nobody(states: list[DenoisingState]) -> None:
    """A job can do without its checkpoint."""
    _, seconds = run(states, Store([0.0], fails=True), at_most=1)

    assert seconds < 5.0


def test_worker_that_is_to_stop_waits_for_no_write(states: list[DenoisingState]) -> None:
    """It writes its last checkpoint on the way out."""
    stop = threading.Event()
    stop.set()

    _, seconds = run(states, Store([2.0]), at_most=1, stop=stop)

    assert seconds < STEPS * 0.1 + 3.0
