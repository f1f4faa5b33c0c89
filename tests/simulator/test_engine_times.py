from __future__ import annotations

import pytest
from sim_worlds import COSTS, LARGE, Scripted, TableCosts, a_cost, a_workload, always, an_arrival

from ddit_batch.errors import ConfigError
from ddit_batch.job import Phase
from ddit_batch.policy.base import Policy
from ddit_batch.simulator import Arrival, Cluster, Config, Result, Workload, simulate
from ddit_batch.snapshot import BatchView, JobView, Snapshot


def run(policy: Policy, *arrivals: Arrival, gpus: int = 2, **config: float) -> Result:
    return simulate(a_workload(*arrivals), COSTS, policy, Cluster(gpus=gpus), Config(**config))


def ends(result: Result) -> list[float]:
    return [job.finished_s for job in result.jobs]


def steps(result: Result) -> list[tuple[int, float, float, int, int]]:
    """Of each DiT segment the job's number, when it was, and its steps."""
    return [
        (int(s.job_id[-6:]), s.begun_s, s.ended_s, s.from_step, s.to_step)
        for s in result.segments
        if s.phase is Phase.DIT
    ]


def test_job_alone_takes_its_steps_and_its_decode() -> None:
    """Four steps of ten seconds, and three seconds to decode."""
    assert ends(run(always(1), an_arrival(1, at_s=5.0))) == [5.0 + 40.0 + 3.0]
    assert ends(run(always(2), an_arrival(1))) == [24.0 + 3.0]


def test_encoding_delays_the_job_and_holds_no_worker() -> None:
    """The worker is another's meanwhile."""
    costs = TableCosts(table={LARGE: a_cost(10.0, encode_s=7.0)})
    jobs = an_arrival(1, shape=LARGE), an_arrival(2, at_s=1.0, steps=1)

    result = simulate(a_workload(*jobs), costs, always(1), Cluster(gpus=1))

    assert ends(result) == [14.0 + 43.0, 1.0 + 10.0 + 3.0]
    assert [job.started_s for job in result.jobs] == [14.0, 1.0]


def test_jobs_wait_for_workers() -> None:
    """Two workers, three jobs of 43 seconds: the third begins when the first two are decoded."""
    result = run(always(1), *(an_arrival(n) for n in (1, 2, 3)))

    assert ends(result) == [43.0, 43.0, 86.0]
    assert result.makespan_s == 86.0


def test_starting_costs_what_the_config_says() -> None:
    """The workers are held meanwhile."""
    result = run(always(2), an_arrival(1), start_s=0.5)

    assert ends(result) == [27.5]
    assert result.segments[0].overhead_s == 0.5
    assert result.jobs[0].gpu_s == 2 * 24.5 + 3.0


def wider_when_alone(job: JobView, snapshot: Snapshot) -> int:
    del job
    return 2 if len(snapshot.jobs) == 1 else 1


def test_running_job_grows_at_its_next_step_boundary() -> None:
    """Job 2 is decoded after 13 seconds; job 1 hears of it in its second step, which ends at 20."""
    result = run(Scripted(wish=wider_when_alone), an_arrival(1), an_arrival(2, steps=1))

    assert steps(result) == [(2, 0.0, 10.0, 0, 1), (1, 0.0, 20.0, 0, 2), (1, 20.0, 32.0, 2, 4)]
    assert ends(result) == [35.0, 13.0]
    assert result.jobs[0].resizes == 1


def test_resizing_costs_what_the_config_says() -> None:
    """Half a second in which both workers stand still."""
    result = run(
        Scripted(wish=wider_when_alone), an_arrival(1), an_arrival(2, steps=1), resize_s=0.5
    )

    assert ends(result)[0] == 35.5
    assert result.jobs[0].gpu_s == 20.0 + 2 * 12.5 + 3.0


def test_running_job_gives_workers_up_at_its_next_step_boundary() -> None:
    """Job 2 comes at 7; the second step of job 1 ends at 12, and then its second worker is free."""
    result = run(Scripted(wish=wider_when_alone), an_arrival(1), an_arrival(2, at_s=7.0, steps=1))

    assert steps(result)[0] == (1, 0.0, 12.0, 0, 2)
    assert result.jobs[1].started_s == 12.0
    assert ends(result)[1] == 12.0 + 13.0


def test_change_that_is_taken_back_before_the_boundary_changes_nothing() -> None:
    """Job 3 has come and job 2 has gone meanwhile: nobody was disturbed at the boundary."""
    costs = TableCosts(table={LARGE: a_cost(1.0, decode_s=1.0)})

    def wish(job: JobView, snapshot: Snapshot) -> int:
        return 2 if job.seq == 0 and not 2.0 <= snapshot.now_s < 5.0 else 1

    jobs = an_arrival(1), an_arrival(2, 2.0, shape=LARGE), an_arrival(3, 5.0, shape=LARGE)
    result = simulate(a_workload(*jobs), costs, Scripted(wish=wish), Cluster(gpus=2))

    assert steps(result)[0] == (1, 0.0, 24.0, 0, 4)
    assert result.jobs[0].resizes == 0


def test_change_told_in_the_last_step_comes_too_late() -> None:
    """Job 2 is decoded at 33, and job 1 is denoised at 40: it would have grown then."""
    result = run(
        Scripted(wish=wider_when_alone), an_arrival(1), an_arrival(2, steps=3), resize_s=0.5
    )

    assert ends(result) == [43.0, 33.0]
    assert result.jobs[0].resizes == 0


def test_change_told_at_a_boundary_waits_for_the_next() -> None:
    """Job 2 comes at 6, when the first step has just ended: nobody can hear of it in time."""
    result = run(Scripted(wish=wider_when_alone), an_arrival(1), an_arrival(2, at_s=6.0, steps=1))

    assert steps(result)[0] == (1, 0.0, 12.0, 0, 2)


def test_released_job_keeps_its_steps_and_goes_on_on_any_workers() -> None:
    """Job 2 is urgent and wants both workers: job 1 gives its own back, and comes back later."""

    def wish(job: JobView, snapshot: Snapshot) -> int:
        urgent = any(other.priority for other in snapshot.jobs)
        return 2 if job.priority or not urgent else 0

    urgent = an_arrival(2, at_s=7.0, steps=1, priority=1)
    result = run(Scripted(wish=wish), an_arrival(1), urgent)

    assert steps(result) == [(1, 0.0, 12.0, 0, 2), (2, 12.0, 18.0, 0, 1), (1, 21.0, 33.0, 2, 4)]
    assert ends(result) == [36.0, 21.0]


def test_policy_that_leaves_jobs_waiting_is_told_so() -> None:
    """Nothing would ever happen again."""
    with pytest.raises(ConfigError, match="leaves 1 of 1 jobs waiting although nothing runs"):
        run(always(4), an_arrival(1), gpus=2)


def test_illegal_dop_is_refused() -> None:
    """The cost model knows no step of three workers."""
    with pytest.raises(ConfigError, match=r"was given 3 workers: legal .* are 1, 2, 4, 8"):
        run(always(3), an_arrival(1), gpus=4)


def test_worker_that_is_not_wanted_any_more_is_given_at_once() -> None:
    """At 13 job 1 was told to have both from 20; job 3 comes at 15 and need not wait for that."""
    jobs = an_arrival(1), an_arrival(2, steps=1), an_arrival(3, at_s=15.0)

    result = run(Scripted(wish=wider_when_alone), *jobs)

    assert result.jobs[2].started_s == 15.0
    assert result.jobs[0].resizes == 0


def test_decision_sees_progress_pending_changes_and_grants() -> None:
    """What job 1 looks like at the arrivals of others, which are at 5, 17, 25 and 55."""
    seen: dict[float, JobView] = {}

    def wish(job: JobView, snapshot: Snapshot) -> int:
        if job.seq == 0:
            seen[snapshot.now_s] = job
        return 2 if job.seq == 0 and snapshot.now_s > 15.0 else 1

    late = (an_arrival(n, at_s, steps=1) for n, at_s in enumerate((5.0, 17.0, 25.0, 55.0), start=2))
    run(Scripted(wish=wish), an_arrival(1, steps=6), *late, gpus=3)

    def facts(at_s: float) -> tuple[int, int, int, int | None]:
        job = seen[at_s]
        return job.step, job.dop, job.granted_step, job.pending and len(job.pending)

    assert facts(0.0) == (0, 0, 0, None)
    assert facts(5.0) == (0, 1, 0, None)
    assert facts(17.0) == (1, 1, 0, None)
    assert facts(18.0) == (1, 1, 0, 2)
    assert facts(25.0) == (2, 2, 2, None)
    assert facts(28.0) == (3, 2, 2, None)


def test_batches_with_a_deadline_are_told_what_they_still_need() -> None:
    """Ten seconds a step and three for the decode: of what waits, of what runs, of what arrived."""
    seen: dict[float, tuple[BatchView, ...]] = {}

    def wish(job: JobView, snapshot: Snapshot) -> int:
        del job
        seen[snapshot.now_s] = snapshot.batches
        return 1

    jobs = (
        an_arrival(1, batch_id="due"),
        an_arrival(2, batch_id="due", steps=2),
        an_arrival(3, at_s=15.0),
        an_arrival(4, at_s=50.0, batch_id="due"),
    )
    batches = BatchView(batch_id="due", deadline_s=100.0), BatchView(batch_id="b", share=2.0)
    workload = Workload(arrivals=jobs, batches=batches)

    simulate(workload, COSTS, Scripted(wish=wish), Cluster(gpus=1))

    assert [batch.work_s for batch in seen[0.0]] == [43.0 + 23.0, 0.0]
    assert [batch.work_s for batch in seen[15.0]] == [33.0 + 23.0, 0.0]
    assert [batch.work_s for batch in seen[50.0]] == [23.0 + 43.0, 0.0]
    assert seen[50.0][0].deadline_s == 100.0


def test_step_boundaries_at_which_nothing_changes_ask_for_no_decision() -> None:
    """As many decisions for a thousand steps as for one."""
    short, long = (
        run(always(1), *(an_arrival(n, float(n), steps=steps) for n in range(5)))
        for steps in (1, 1000)
    )

    assert short.decisions == long.decisions == 3 * 5
