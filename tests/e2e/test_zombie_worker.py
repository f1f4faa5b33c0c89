from __future__ import annotations

import pytest
from cluster_tools import Caught, Cluster, Figure, Sums
from e2e_processes import is_alive, wait_until

from ddit_batch.job import Phase

CHECKPOINT = 20


@pytest.mark.parametrize("phase", [Phase.DIT, Phase.VAE])
def test_zombie_changes_nothing_and_lives_on(
    phase: Phase, spare_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """A worker that sleeps through its lease wakes up to a job that another has finished."""
    batch = spare_cluster.submit("long")
    zombie = batch.catch(phase, checkpoint=CHECKPOINT if phase is Phase.DIT else 0)
    figure(f"{phase} worker frozen, another takes over", batch.recovery_s(zombie, phase), "s")
    batch.wait_done()
    batch.assert_undisturbed(undisturbed)
    finished = batch.job("long")
    old_log = spare_cluster.log(zombie.name)

    zombie.thaw()
    wait_until(
        lambda: "fenced" in spare_cluster.log(zombie.name)[len(old_log) :], "the zombie is refused"
    )

    assert batch.job("long") == finished
    batch.assert_undisturbed(undisturbed)
    assert batch.attempts("long", phase) == ["worker_lost", "finish"]
    assert is_alive(zombie.pid)
    wait_until(lambda: _is_online_again(spare_cluster, zombie), "the zombie has a new incarnation")


def _is_online_again(cluster: Cluster, zombie: Caught) -> bool:
    rows = cluster.rows(
        "SELECT pid FROM workers WHERE name = %s AND incarnation > %s AND state = 'online'",
        zombie.name,
        zombie.incarnation,
    )
    return rows == [(zombie.pid,)]


def test_former_zombie_works_again(spare_cluster: Cluster, undisturbed: dict[str, Sums]) -> None:
    """Two jobs at once go to both DiT workers, of which one had been declared lost."""
    first = spare_cluster.submit("long")
    zombie = first.catch(Phase.DIT)
    first.recovery_s(zombie, Phase.DIT)
    zombie.thaw()
    wait_until(lambda: _is_online_again(spare_cluster, zombie), "the zombie has a new incarnation")

    second = spare_cluster.submit("long-euler", "fox")
    first.wait_done()
    second.wait_done()

    first.assert_undisturbed(undisturbed)
    second.assert_undisturbed(undisturbed)
    workers = spare_cluster.value(
        "SELECT array_agg(DISTINCT incarnation) FROM attempts a JOIN jobs j ON j.id = a.job_id "
        "WHERE batch_id = %s AND phase = 'dit'",
        second.batch_id,
    )
    assert any(incarnation > zombie.incarnation for incarnation in workers)
