from __future__ import annotations

import psutil
import pytest
from cluster_tools import Batch, Caught, Cluster, Figure, Sums
from e2e_prompts import SHORT

from ddit_batch.config import Settings
from ddit_batch.job import Phase

WITH_SPARE_S = 5.0
"""The longest time from a worker's death until another has its job, if another is idle."""
LEASE_S = 3.0
PLACING_S = 2.0
"""On top of the lease and the start of a worker, when there is nobody else."""
STEP = 24
"""Where DiT workers are killed."""


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.chaos
def test_job_of_killed_worker_goes_on_with_its_successor(
    phase: Phase, session_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """Without a spare: after the worker has been started again, with the same video."""
    session_cluster.mend({phase: 1})
    batch, caught = _kill(session_cluster, phase)

    recovery_s = batch.recovery_s(caught, phase)

    session_cluster.add_spare(phase)  # for the tests below: it starts meanwhile
    start_s = _start_s(session_cluster, caught)
    figure(f"kill -9 {phase}, no spare, worker starts in {start_s:.1f} s", recovery_s, "s")
    assert recovery_s < LEASE_S + start_s + PLACING_S
    _assert_resumed(batch, caught, phase)
    batch.assert_undisturbed(undisturbed)


@pytest.mark.parametrize("phase", Phase)
def test_job_of_killed_worker_goes_on_with_a_spare(
    phase: Phase, session_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """With a warm worker of the same phase: as soon as the lease has run out."""
    session_cluster.mend({phase: 2})
    batch, caught = _kill(session_cluster, phase)

    recovery_s = batch.recovery_s(caught, phase)

    session_cluster.add_spare(phase)  # if it was that which was killed
    figure(f"kill -9 {phase}, warm spare", recovery_s, "s")
    assert recovery_s < WITH_SPARE_S
    repeated = _assert_resumed(batch, caught, phase)
    if phase is Phase.DIT:
        figure("steps repeated after kill -9 of DiT", repeated, "steps")
    batch.assert_undisturbed(undisturbed)


def _kill(cluster: Cluster, phase: Phase) -> tuple[Batch, Caught]:
    """A batch, and the worker that was killed in the middle of a job of it."""
    names = {Phase.ENCODE: SHORT, Phase.DIT: ("long",), Phase.VAE: ("tram",)}[phase]
    cluster.forget_embeddings()
    batch = cluster.submit(*names)
    caught = batch.catch(phase, step=STEP if phase is Phase.DIT else 0)
    caught.kill()
    return batch, caught


def _start_s(cluster: Cluster, caught: Caught) -> float:
    """Seconds that the successor of the killed worker took from its start to its registration."""
    ((pid, registered_at),) = cluster.rows(
        "SELECT pid, extract(epoch FROM registered_at)::float8 FROM workers "
        "WHERE name = %s ORDER BY incarnation DESC LIMIT 1",
        caught.name,
    )
    return float(registered_at) - psutil.Process(pid).create_time()


def _assert_resumed(batch: Batch, caught: Caught, phase: Phase) -> int:
    """Only the broken attempt was repeated, from the checkpoint; returns the steps repeated."""
    batch.wait_done()
    for each in Phase:
        expected = ["worker_lost", "finish"] if each is phase else ["finish"]
        assert batch.attempts(caught.custom_id, each) == expected
    if phase is not Phase.DIT:
        return 0
    (first, second) = batch.segments(caught.custom_id)
    assert first[0] == 0
    every = Settings().checkpoint_every_steps
    assert second[0] > 0
    assert second[2] == "resume"
    repeated = caught.step - second[0]
    assert 0 <= repeated <= every
    return repeated
