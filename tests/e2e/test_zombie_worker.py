from __future__ import annotations

import pytest
from cluster_tools import Batch, Caught, Cluster, Figure, Sums
from e2e_processes import is_alive, wait_until

from ddit_batch.job import Phase

STEP = 24


def test_dit_zombie_changes_nothing_and_works_again(
    session_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """A worker that sleeps through its lease wakes up to a job that another has finished."""
    session_cluster.mend({Phase.DIT: 2})
    batch = session_cluster.submit("long")
    zombie = batch.catch(Phase.DIT, step=STEP)
    figure("DiT worker frozen, another has its job", batch.recovery_s(zombie, Phase.DIT), "s")

    _wake_too_late(batch, zombie, Phase.DIT, undisturbed)

    both = session_cluster.submit("long-euler", "fox")
    both.wait_done()
    both.assert_undisturbed(undisturbed)
    incarnations = session_cluster.value(
        "SELECT array_agg(incarnation) FROM attempts a JOIN jobs j ON j.id = a.job_id "
        "WHERE batch_id = %s AND phase = 'dit'",
        both.batch_id,
    )
    assert session_cluster.incarnation(zombie.name) in incarnations


@pytest.mark.chaos
def test_vae_zombie_changes_nothing(
    session_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """A late video is neither named nor delivered."""
    session_cluster.mend({Phase.VAE: 2})
    batch = session_cluster.submit("tram")
    zombie = batch.catch(Phase.VAE)
    figure("VAE worker frozen, another has its job", batch.recovery_s(zombie, Phase.VAE), "s")

    _wake_too_late(batch, zombie, Phase.VAE, undisturbed)


def _wake_too_late(
    batch: Batch, zombie: Caught, phase: Phase, undisturbed: dict[str, Sums]
) -> None:
    """Let the zombie go on after another has finished its job: it is refused, and lives on."""
    cluster = batch.cluster
    batch.wait_done()
    batch.assert_undisturbed(undisturbed)
    finished = batch.job(zombie.custom_id)
    before = len(cluster.log(zombie.name))

    zombie.thaw()
    wait_until(lambda: "fenced" in cluster.log(zombie.name)[before:], "the zombie is refused")

    assert batch.job(zombie.custom_id) == finished
    assert batch.attempts(zombie.custom_id, phase) == ["worker_lost", "finish"]
    batch.assert_undisturbed(undisturbed)
    wait_until(
        lambda: cluster.incarnation(zombie.name) > zombie.incarnation, "a new incarnation begins"
    )
    assert zombie.pid in cluster.worker_pids(phase)
    assert is_alive(zombie.pid)
