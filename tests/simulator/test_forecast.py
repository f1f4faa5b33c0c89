from __future__ import annotations

from dataclasses import replace

from sim_worlds import COSTS, MODEL, SMALL, always

from ddit_batch.job import Incarnation, JobId, JobState, Phase, WorkerName
from ddit_batch.simulator import Cluster
from ddit_batch.simulator.forecast import forecast
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

WORKERS = Cluster(gpus=2).workers(frozenset({MODEL}))
FIRST, SECOND = (worker.name for worker in WORKERS)
NOW_S = 1000.0


def a_view(number: int, state: JobState, *group: WorkerName, **changes: object) -> JobView:
    """A job of four steps, as a live snapshot shows it."""
    view = JobView(
        job_id=JobId(f"b-{number:06d}"),
        batch_id="b",
        state=state,
        priority=0,
        seq=number,
        model=MODEL,
        shape=SMALL,
        steps=4,
        step=0,
        attempt=1,
        dop=len(group),
        message=Whereabouts.NONE,
        group=group,
        holder=next((w.incarnation for w in WORKERS if w.name in group[:1]), None),
        worker_losses=0,
        cancel_requested=False,
        arrived_s=900.0,
    )
    return replace(view, **changes)


def left_s(
    *jobs: JobView, dop: int = 1, workers: tuple[WorkerView, ...] = WORKERS
) -> dict[int, float]:
    """Seconds from now until each job is done, by its number."""
    snapshot = Snapshot(
        now_s=NOW_S, jobs=jobs, workers=workers, waiting_to_decode=0, may_lose_workers=False
    )
    ends = forecast(snapshot, COSTS, always(dop))
    return {int(job_id[-6:]): end_s - NOW_S for job_id, end_s in ends.items()}


def test_running_job_goes_on_from_its_step() -> None:
    """Two steps of ten seconds are left, and the decode."""
    assert left_s(a_view(1, JobState.DENOISING, FIRST, step=2)) == {1: 23.0}


def test_waiting_jobs_come_after_those_that_run() -> None:
    """One finds an idle worker, the other waits for the first to be free."""
    jobs = (
        a_view(1, JobState.DENOISING, FIRST, step=2),
        a_view(2, JobState.ENCODED, step=1),
        a_view(3, JobState.QUEUED),
    )

    assert left_s(*jobs) == {1: 23.0, 2: 33.0, 3: 23.0 + 43.0}


def test_jobs_beyond_their_steps_are_decoded() -> None:
    """One is at it, two wait; a decode by a worker of its own phase is done here, too."""
    jobs = (
        a_view(1, JobState.DECODING, FIRST),
        a_view(2, JobState.DENOISED, step=4, last_group=(SECOND,)),
        a_view(3, JobState.DECODING, step=4, holder=Incarnation(99)),
    )

    assert left_s(*jobs) == {1: 3.0, 2: 3.0, 3: 6.0}


def test_told_change_takes_effect_at_the_boundary() -> None:
    """The first step ends at 10 with one worker; three of six seconds follow with two."""
    growing = a_view(1, JobState.DENOISING, FIRST, pending=(FIRST, SECOND))

    assert left_s(growing, dop=2) == {1: 10.0 + 18.0 + 3.0}


def test_job_of_a_worker_that_is_gone_waits_again() -> None:
    """It has its steps, as far as they are known."""
    jobs = a_view(1, JobState.DENOISING, WorkerName("gone@host"), step=3)

    assert left_s(jobs) == {1: 13.0}


def test_jobs_that_nobody_will_do_are_left_out() -> None:
    """Cancelled ones, and those of a model that no worker serves."""
    jobs = a_view(1, JobState.ENCODED, cancel_requested=True), a_view(2, JobState.QUEUED, model="x")

    assert left_s(*jobs) == {}
    assert left_s(a_view(3, JobState.ENCODED), workers=()) == {}
    vae = replace(WORKERS[0], phase=Phase.VAE)
    assert left_s(a_view(3, JobState.ENCODED), workers=(vae,)) == {}
