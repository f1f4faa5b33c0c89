"""Groups that lose a member, wait for one in vain, or are planned anew while they form, live."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import pytest
from cluster_tools import Batch, Cluster, Figure, Sums
from deciding import deciding
from e2e_processes import is_alive, wait_until
from e2e_prompts import GROUP_TIMEOUT_S, GROUPED_STEPS
from group_cluster import (
    assert_no_worker_in_two_groups,
    assert_steps_are_whole,
    events,
    groups,
    ids,
    number,
    pid_of,
    spans,
    step_said,
    wait_group,
)
from scripted import Scripted

from ddit_batch.job import Phase

JOB, OTHER = "unipc-cp", "odd-usp"
WELL_UNDER_WAY = 10
"""Steps after which something happens to the group."""


@pytest.fixture
def running(
    session_cluster: Cluster, alone: dict[str, Sums], request: pytest.FixtureRequest
) -> Iterator[tuple[Scripted, Batch]]:
    """A job that waits for the script's first stage, in a cluster that the test leads.

    It has four DiT workers, or as many as the test says: those that others have killed need not
    start again.
    """
    del alone  # made before any worker is lost
    session_cluster.mend({Phase.DIT: getattr(request, "param", 4)})
    script = Scripted(stages=[])
    with deciding(session_cluster, script):
        batch = session_cluster.submit(JOB)
        yield script, batch


def gives(script: Scripted, batch: Batch, *workers: int) -> None:
    """Have the job denoised by *workers* from its next boundary on."""
    script.stages, script.jobs = [{JOB: workers}], ids(batch)


def runs_on(script: Scripted, batch: Batch, *workers: int) -> None:
    """Give the job *workers*, and wait until it is well under way with them."""
    gives(script, batch, *workers)
    _, from_step, _ = wait_group(batch, JOB, workers)
    wait_until(
        lambda: step_said(batch, JOB) >= from_step + WELL_UNDER_WAY,
        f"{JOB} is well under way on {workers}",
    )


def serves_another(script: Scripted, batch: Batch, *workers: int) -> Batch:
    """Have *workers*, which the job has no more, denoise another one; wait until they do."""
    other = batch.cluster.submit(OTHER)
    script.stages, script.jobs = [{**script.stages[0], OTHER: workers}], ids(batch, other)
    wait_group(other, OTHER, workers)
    return other


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Process *pid* hangs for the length of the block."""
    os.kill(pid, SIGSTOP)
    try:
        yield
    finally:
        if is_alive(pid):
            os.kill(pid, SIGCONT)


def next_step_s(batch: Batch) -> float:
    """Seconds from now until the job has taken another step."""
    begun_s, step = time.monotonic(), step_said(batch, JOB)
    wait_until(lambda: step_said(batch, JOB) > step, f"{JOB} steps again")
    return time.monotonic() - begun_s


def plans(batch: Batch) -> list[tuple[tuple[int, ...], Any]]:
    """The plans of the job, oldest first: workers and what became of each."""
    rows = batch.cluster.rows(
        "SELECT workers, outcome FROM plans WHERE job_id = %s ORDER BY epoch", batch.job(JOB)["id"]
    )
    return [(tuple(map(number, workers)), outcome) for workers, outcome in rows]


def ends_well(batch: Batch, alone: dict[str, Sums], *, attempts: int = 1) -> None:
    """The job ends, after so many attempts, with the video of an undisturbed run."""
    batch.wait_done()
    batch.assert_undisturbed(alone)
    (name,) = batch.custom_ids
    assert len(batch.attempts(name, Phase.DIT)) == attempts
    found = spans(batch)
    assert_steps_are_whole(found, name, GROUPED_STEPS)
    assert_no_worker_in_two_groups(found)


@pytest.mark.chaos
def test_plan_that_changes_while_its_group_forms_is_replaced(
    running: tuple[Scripted, Batch], alone: dict[str, Sums]
) -> None:
    """The worker that did not come in time for the first plan is free again afterwards."""
    script, batch = running
    runs_on(script, batch, 0)
    with frozen(pid_of(batch.cluster, 1)):
        gives(script, batch, 0, 1)
        wait_until(lambda: plans(batch) == [((0, 1), None)], "the first plan is under way")
        gives(script, batch, 0, 2)
        wait_group(batch, JOB, (0, 2))

    other = serves_another(script, batch, 1)

    ends_well(batch, alone)
    ends_well(other, alone)
    assert groups(spans(batch), JOB) == [(0,), (0, 2)]
    assert [outcome for _, outcome in plans(batch)] == ["replaced", "formed"]


@pytest.mark.chaos
def test_scheduler_that_restarts_during_a_resize_goes_on_with_the_same_plan(
    four_workers: Cluster, alone: dict[str, Sums]
) -> None:
    """The plan stands in Postgres: the next term tells the members of it again."""
    script = Scripted(stages=[])
    with deciding(four_workers, script) as restart:
        batch = four_workers.submit(JOB)
        runs_on(script, batch, 0)
        with frozen(pid_of(four_workers, 1)):
            gives(script, batch, 0, 1)
            wait_until(lambda: plans(batch), "the plan is under way")
            terms = four_workers.value("SELECT term FROM leadership")
            restart()
            wait_until(
                lambda: four_workers.value("SELECT term FROM leadership") > terms, "a new term"
            )
        wait_group(batch, JOB, (0, 1))

        ends_well(batch, alone)

    assert plans(batch) == [((0, 1), "formed")]


@pytest.mark.chaos
def test_frozen_follower_costs_the_group_timeout_and_the_leader_goes_on(
    running: tuple[Scripted, Batch], alone: dict[str, Sums], figure: Figure
) -> None:
    """The same attempt, from the last completed step; the follower may come back later."""
    script, batch = running
    runs_on(script, batch, 0, 2)
    leader, follower = pid_of(batch.cluster, 0), pid_of(batch.cluster, 2)
    with frozen(follower):
        stood_s = next_step_s(batch)
        gives(script, batch, 0)
    other = serves_another(script, batch, 2)

    figure("SIGSTOP of a follower: stepping again after", stood_s, "s")
    assert stood_s <= GROUP_TIMEOUT_S + 2.0
    assert (pid_of(batch.cluster, 0), pid_of(batch.cluster, 2)) == (leader, follower)
    ends_well(batch, alone)
    ends_well(other, alone)
    assert [span.reason for span in spans(batch)][:2] == ["start", "group_broken"]


def test_killed_follower_costs_its_step_and_the_leader_goes_on_in_the_same_process(
    running: tuple[Scripted, Batch], alone: dict[str, Sums], figure: Figure
) -> None:
    """Kill -9 in mid-step: alone from the last completed step, in the same attempt."""
    script, batch = running
    runs_on(script, batch, 0, 1, 2, 3)
    survivors = {worker: pid_of(batch.cluster, worker) for worker in (0, 1, 2)}

    os.kill(pid_of(batch.cluster, 3), SIGKILL)
    stood_s = next_step_s(batch)

    figure("kill -9 of a follower: stepping again after", stood_s, "s")
    assert stood_s <= 2.0
    other = serves_another(script, batch, 1, 2)
    ends_well(batch, alone)
    ends_well(other, alone)
    assert {worker: pid_of(batch.cluster, worker) for worker in survivors} == survivors
    reasons = [span.reason for span in spans(batch)]
    assert reasons[:2] == ["start", "group_broken"]


@pytest.mark.parametrize("running", [3], indirect=True)
@pytest.mark.chaos
def test_newcomer_that_dies_while_it_joins_costs_nothing(
    running: tuple[Scripted, Batch], alone: dict[str, Sums]
) -> None:
    """The leader goes on stepping; the plan comes to nothing."""
    script, batch = running
    runs_on(script, batch, 0)
    newcomer = pid_of(batch.cluster, 2)
    with frozen(newcomer):
        gives(script, batch, 0, 2)
        wait_until(lambda: plans(batch), "the plan is under way")
        os.kill(newcomer, SIGKILL)
    gone = wait_until(lambda: plans(batch)[0][1], "the plan is over", within_s=20.0)

    ends_well(batch, alone)
    assert gone in {"not_formed", "replaced", "withdrawn", "attempt_ended"}
    assert groups(spans(batch), JOB) == [(0,)]


@pytest.mark.parametrize("running", [2], indirect=True)
def test_killed_leader_costs_an_attempt_and_its_follower_leads_on(
    running: tuple[Scripted, Batch], alone: dict[str, Sums], figure: Figure
) -> None:
    """From the last checkpoint; the follower's process survives and takes the job over."""
    script, batch = running
    runs_on(script, batch, 1, 0)
    follower = pid_of(batch.cluster, 0)
    begun_s = time.monotonic()

    os.kill(pid_of(batch.cluster, 1), SIGKILL)
    wait_group(batch, JOB, (0,))

    figure("kill -9 of a leader: its follower leads after", time.monotonic() - begun_s, "s")
    batch.wait_done()
    batch.assert_undisturbed(alone)
    assert pid_of(batch.cluster, 0) == follower
    assert events(batch, JOB).count("worker_lost") == 1
    assert batch.attempts(JOB, Phase.DIT) == ["worker_lost", "finish"]
    assert groups(spans(batch), JOB) == [(1, 0), (0,)]
