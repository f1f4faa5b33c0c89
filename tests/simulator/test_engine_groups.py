"""Groups that take a while to form, and workers that only decode."""

from __future__ import annotations

import pytest
from sim_worlds import COSTS, Scripted, a_workload, always, an_arrival

from ddit_batch.job import Phase
from ddit_batch.policy.base import Policy
from ddit_batch.simulator import Arrival, Cluster, Config, Result, simulate
from ddit_batch.snapshot import JobView, Snapshot


def run(
    policy: Policy, *arrivals: Arrival, gpus: int = 2, vae_workers: int = 0, **config: float
) -> Result:
    cluster = Cluster(gpus=gpus, vae_workers=vae_workers)
    return simulate(a_workload(*arrivals), COSTS, policy, cluster, Config(**config))


def ends(result: Result) -> list[float]:
    return [job.finished_s for job in result.jobs]


def groups(result: Result) -> list[tuple[int, float, int, int]]:
    """Of each DiT segment of job 1 the dop, when it began, and its steps."""
    return [
        (s.dop, s.begun_s, s.from_step, s.to_step)
        for s in result.segments
        if s.phase is Phase.DIT and s.job_id == an_arrival(1).job_id
    ]


@pytest.mark.parametrize(
    ("start_s", "form_s", "waits_s"), [(0.0, 0.9, 0.9), (0.5, 1.4, 1.4), (0.5, 0.2, 0.5)]
)
def test_first_step_waits_a_moment_for_its_group(
    start_s: float, form_s: float, waits_s: float
) -> None:
    """At most a second after its leader has started; forming and starting go side by side."""
    result = run(always(2), an_arrival(1), start_s=start_s, form_s=form_s)

    assert groups(result) == [(2, 0.0, 0, 4)]
    assert ends(result) == [waits_s + 4 * 6.0 + 3.0]


def test_leader_whose_group_is_late_begins_alone() -> None:
    """One step of ten seconds, then three of six."""
    result = run(always(2), an_arrival(1), form_s=1.5)

    assert groups(result) == [(1, 0.0, 0, 1), (2, 10.0, 1, 4)]
    assert ends(result) == [10.0 + 3 * 6.0 + 3.0]


def test_workers_of_a_group_that_forms_are_nobody_elses() -> None:
    """Job 2 would start at once on the second worker, if job 1 did not wait for it."""
    result = run(always(2), an_arrival(1), an_arrival(2, at_s=1.0), form_s=1.5)

    assert result.jobs[1].started_s == ends(result)[0]


def widths(*changes: tuple[float, int]) -> Scripted:
    """Job 1 is to have so many workers from each of the times on; the others one."""

    def wish(job: JobView, snapshot: Snapshot) -> int:
        due = [width for at_s, width in changes if at_s <= snapshot.now_s]
        return due[-1] if job.seq == 0 else 1

    return Scripted(wish=wish)


@pytest.mark.parametrize(
    ("form_s", "second"),
    [(0.0, (2, 10.0, 1, 4)), (4.9, (2, 10.0, 1, 4)), (5.1, (2, 20.0, 2, 4))],
)
def test_growing_group_changes_at_the_first_boundary_after_it_has_formed(
    form_s: float, second: tuple[int, float, int, int]
) -> None:
    """Told at 5: formed before the boundary at 10, or not before the one at 20."""
    policy = widths((0.0, 1), (5.0, 2))

    result = run(policy, an_arrival(1), an_arrival(2, at_s=5.0, steps=1), gpus=3, form_s=form_s)

    assert groups(result)[-1] == second


def test_leader_that_is_left_alone_forms_nothing() -> None:
    """Told at 12 it is alone from its next boundary, however long forming takes."""
    policy = widths((0.0, 2), (12.0, 1))

    result = run(policy, an_arrival(1), an_arrival(2, at_s=12.0, steps=1), gpus=3, form_s=9.0)

    assert groups(result) == [(1, 0.0, 0, 1), (2, 10.0, 1, 2), (1, 16.0, 2, 4)]


def test_plan_that_replaces_another_has_its_own_time_to_form() -> None:
    """Told at 2 to be two, at 8 to be four: formed at 13, in the second step."""
    policy = widths((0.0, 1), (2.0, 2), (8.0, 4))
    others = (an_arrival(n, at_s, steps=1) for n, at_s in ((2, 2.0), (3, 8.0)))

    result = run(policy, an_arrival(1), *others, gpus=6, form_s=5.0)

    assert groups(result) == [(1, 0.0, 0, 2), (4, 20.0, 2, 4)]


def test_vae_worker_decodes_while_the_gpu_denoises_the_next() -> None:
    """Four steps of ten seconds each; three seconds to decode, on another worker."""
    result = run(always(1), an_arrival(1), an_arrival(2), gpus=1, vae_workers=1)

    assert ends(result) == [40.0 + 3.0, 80.0 + 3.0]
    assert result.jobs[0].gpu_s == 40.0
    assert {segment.phase for segment in result.segments} == {Phase.DIT}


@pytest.mark.parametrize(
    ("vae_workers", "expected"), [(1, [13.0, 16.0, 19.0]), (2, [13.0, 13.0, 16.0])]
)
def test_vae_workers_take_videos_in_the_order_in_which_they_come(
    vae_workers: int, expected: list[float]
) -> None:
    """Three are denoised at once, after ten seconds."""
    jobs = (an_arrival(n, steps=1) for n in (1, 2, 3))

    assert ends(run(always(1), *jobs, gpus=3, vae_workers=vae_workers)) == expected
