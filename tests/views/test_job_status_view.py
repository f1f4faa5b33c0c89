from __future__ import annotations

import random

import pytest
from farm import STEPS, Farm, request

from ddit_batch.db.scheduler_store import Standing
from ddit_batch.job import FINAL_STATES, HELD_STATES, PHASE_OF, WORKING_STATE, JobState, Phase
from ddit_batch.snapshot import Progress


@pytest.mark.parametrize("state", [s for s in JobState if s not in FINAL_STATES], ids=str)
def test_live_job_shows_where_it_is_and_who_has_it(farm: Farm, state: JobState) -> None:
    """State, phase, workers and attempt are those of the moment."""
    workers = farm.workers()
    (job,) = farm.submit(request(1, custom_id="cat", prompt="a cat", priority=3))
    farm.bring(job, state, workers)

    found = farm.status(job)

    phase = PHASE_OF[state]
    held = state in HELD_STATES
    assert found["batch_id"] == str(job).rpartition("-")[0]
    assert (found["custom_id"], found["line"], found["prompt"]) == ("cat", 1, "a cat")
    assert (found["model"], found["shape"], found["priority"]) == ("tiny-wan", "96x64x9", 3)
    assert (found["state"], found["phase"]) == (state, phase)
    assert found["workers"] == ([f"{phase}-0@gpu-a"] if held else None)
    assert found["dop"] == (1 if state is JobState.DENOISING else None)
    assert found["attempt"] == (1 if held or state is JobState.DENOISED else None)
    assert found["steps"] == STEPS
    assert found["step"] == (STEPS if phase is Phase.VAE else 0)
    assert (found["waiting_for"] is None) == held
    assert (found["waiting_because"] is None) == held
    assert 0 <= float(str(found["in_state_s"])) < 60
    assert found["starvation_s"] == 0
    assert found["finished_at"] is None


def test_succeeded_job_names_its_video_and_waits_for_nothing(farm: Farm) -> None:
    """A final job has no phase, no workers, no reason and no estimate."""
    (job,) = farm.submit()
    farm.bring(job, JobState.SUCCEEDED, farm.workers())

    found = farm.status(job)

    assert (found["state"], found["artifact_key"]) == ("succeeded", "video.mp4")
    assert found["finished_at"] is not None
    nothing = ("phase", "workers", "dop", "attempt", "waiting_for", "waiting_because", "eta_s")
    assert {name: found[name] for name in nothing} == dict.fromkeys(nothing)


@pytest.mark.parametrize("phase", Phase, ids=str)
def test_failed_job_says_what_it_failed_of(farm: Farm, phase: Phase) -> None:
    """Code, message and the number of failures are there, whatever the phase."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, WORKING_STATE[phase], workers)
    claim = farm.claims.claim(job, phase, 1, workers[phase])
    farm.claims.fail(claim, code="phase_failed", message="no", retryable=False, max_failures=3)

    found = farm.status(job)

    assert (found["state"], found["phase"]) == ("failed", None)
    assert (found["failure_code"], found["failure_message"]) == ("phase_failed", "no")
    assert (found["failures"], found["worker_losses"]) == (1, 0)
    assert found["waiting_for"] is None


def test_cancelled_job_says_when_that_was_asked_for(farm: Farm) -> None:
    """Also a cancel of the whole batch shows at its jobs."""
    farm.workers()
    one, two = farm.submit(request(1), request(2))
    farm.execute("UPDATE batches SET cancel_requested_at = '2026-01-01'")
    farm.store.cancel(farm.view(one))

    assert farm.status(one)["state"] == "cancelled"
    assert str(farm.status(one)["cancel_requested_at"]).startswith("2026-01-01")
    assert str(farm.status(two)["cancel_requested_at"]).startswith("2026-01-01")


def test_lost_worker_is_counted_and_the_job_waits_again(farm: Farm) -> None:
    """After a rescue the job is back a phase, with one loss and no worker."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.lose(workers[Phase.DIT])
    farm.store.rescue(farm.view(job))

    found = farm.status(job)

    assert (found["state"], found["workers"], found["worker_losses"]) == ("encoded", None, 1)


def test_followers_are_shown_after_the_leader(farm: Farm) -> None:
    """A job that a group denoises shows the whole group."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.execute("UPDATE segments SET dop = 2, workers = '{dit-0@gpu-a,dit-1@gpu-a}'")
    farm.execute("UPDATE jobs SET dop = 2")

    assert farm.status(job)["workers"] == ["dit-0@gpu-a", "dit-1@gpu-a"]
    assert farm.status(job)["dop"] == 2


def test_running_job_is_done_after_its_steps_at_its_pace(farm: Farm) -> None:
    """Estimate: steps left times the time of a recent step."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    farm.progress(claim, step=3, step_s=2.5)

    found = farm.status(job)

    assert (found["step"], found["eta_s"]) == (3, (STEPS - 3) * 2.5)


def test_waiting_jobs_are_done_after_the_work_ahead(farm: Farm) -> None:
    """Estimate: the running rest and the jobs ahead, shared by the workers, then its own steps."""
    workers = farm.workers()
    farm.worker("dit-1@gpu-a", Phase.DIT)
    running, first, second = farm.submit(request(1), request(2), request(3, num_inference_steps=4))
    farm.bring(running, JobState.DENOISING, workers)
    claim = farm.claims.claim(running, Phase.DIT, 1, workers[Phase.DIT])
    farm.progress(claim, step=2, step_s=3.0)

    left = (STEPS - 2) * 3.0
    assert farm.status(running)["eta_s"] == left
    assert farm.status(first)["eta_s"] == left / 2 + STEPS * 3.0
    assert farm.status(second)["eta_s"] == (left + STEPS * 3.0) / 2 + 4 * 3.0


def test_pace_is_the_mean_of_finished_segments_with_their_dop(farm: Farm) -> None:
    """Seconds of a step, and worker-seconds, which a group of two spends twice as fast."""
    workers = farm.workers()
    done, waiting = farm.submit(request(1), request(2))
    farm.bring(done, JobState.SUCCEEDED, workers)
    farm.execute(
        "UPDATE segments SET dop = 2, workers = '{a,b}', "
        f"ended_at = started_at + interval '{STEPS * 5} s'"
    )

    (pace,) = farm.rows("SELECT * FROM model_pace")
    assert (pace["model"], pace["steps"]) == ("tiny-wan", STEPS)
    assert (pace["step_s"], pace["worker_s"]) == (5.0, 10.0)
    assert farm.status(waiting)["eta_s"] == STEPS * 5.0


@pytest.mark.parametrize("missing", ["pace", "workers"])
def test_without_anything_to_go_by_there_is_no_estimate(farm: Farm, missing: str) -> None:
    """No pace yet, or nobody who denoises: null, not a guess."""
    workers = farm.workers()
    done, waiting = farm.submit(request(1), request(2))
    if missing == "workers":
        farm.bring(done, JobState.SUCCEEDED, workers)
        farm.execute("UPDATE segments SET ended_at = started_at + interval '8 s'")
        assert farm.status(waiting)["eta_s"] == 8.0
        farm.lose(workers[Phase.DIT])

    assert farm.status(waiting)["eta_s"] is None


def test_jobs_ahead_are_counted_exactly_in_any_order(farm: Farm) -> None:
    """By priority, then arrival, within the model; also across the blocks of the estimate."""
    dice = random.Random(0)
    requests = [
        request(line, model=dice.choice(["tiny-wan", "other"]), priority=dice.randrange(-1, 2))
        for line in range(1, 201)
    ]
    jobs = farm.submit(*requests)
    order = sorted(requests, key=lambda r: (-r.priority, r.line))

    found = {row["job_id"]: row["jobs_ahead"] for row in farm.rows("SELECT * FROM job_status")}

    for job, own in zip(jobs, requests, strict=True):
        of_model = [r for r in order if r.model == own.model]
        assert found[job] == of_model.index(own)
        if own.line % 50 == 0:
            assert farm.status(job)["jobs_ahead"] == of_model.index(own)


def test_estimate_of_the_scheduler_goes_before_the_pace(farm: Farm) -> None:
    """It knows what a step costs, and the decoding; it stands until the video is complete."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    report = Progress(attempt=1, step=4, step_s=1.0)
    standing = Standing(starvation_s=2.5, eta_s=600.0)

    farm.store.record_progress({job: report}, {job: standing})

    running = farm.status(job)
    assert running["starvation_s"] == 2.5
    assert running["eta_s"] == pytest.approx(600.0, abs=5.0)
    farm.finish(claim)
    decoding = farm.status(job)
    assert decoding["starvation_s"] == 0.0
    assert decoding["eta_s"] == pytest.approx(600.0, abs=5.0)
    farm.finish(farm.claim(job, workers[Phase.VAE]))
    assert farm.status(job)["eta_s"] is None


def test_estimate_that_is_past_is_zero(farm: Farm) -> None:
    """It takes longer than was thought, and nobody knows how much."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.store.record_progress(
        {job: Progress(attempt=1, step=4, step_s=1.0)}, {job: Standing(eta_s=-10.0)}
    )

    assert farm.status(job)["eta_s"] == 0.0
