"""Every reason of a wait, brought about by the stores, and held against what the core does then."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from farm import Farm, request, scheduler_running
from sqlalchemy import Engine

from ddit_batch.db.leases import LeaseStore
from ddit_batch.db.model_problems import record_model_problems
from ddit_batch.db.query import describe_views
from ddit_batch.db.wishes import pause
from ddit_batch.job import JobId, JobState, Phase, WorkerName
from ddit_batch.scheduler.commands import Cancel, Send, Tell

Scene = Callable[[Farm], JobId]
DIT_ONE, DIT_TWO = "dit-0@gpu-a", "dit-1@gpu-a"


def no_worker_at_all(farm: Farm) -> JobId:
    return farm.submit()[0]


def no_dit_worker_to_encode_for(farm: Farm) -> JobId:
    farm.worker("encode-0@gpu-a", Phase.ENCODE)
    return farm.submit()[0]


def no_vae_worker(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISED, workers)
    farm.lose(workers[Phase.VAE])
    return job


def worker_drains(farm: Farm) -> JobId:
    LeaseStore(farm.engine, lease_s=60).drain(farm.workers()[Phase.ENCODE])
    return farm.submit()[0]


def encode_serves_other_models(farm: Farm) -> JobId:
    farm.worker("encode-0@gpu-a", Phase.ENCODE, models=("other",))
    farm.worker("encode-1@gpu-a", Phase.ENCODE, models=("other", "third"))
    farm.worker(DIT_ONE, Phase.DIT)
    return farm.submit()[0]


def dit_serves_other_models(farm: Farm) -> JobId:
    farm.worker("encode-0@gpu-a", Phase.ENCODE)
    farm.worker(DIT_ONE, Phase.DIT, models=("other",))
    return farm.submit()[0]


def encode_could_not_load_it(farm: Farm) -> JobId:
    job = encode_serves_other_models(farm)
    name = WorkerName("encode-0@gpu-a")
    problems = {"third": "no such folder", "tiny-wan": "no weights"}
    record_model_problems(farm.engine, name, Phase.ENCODE, problems)
    return job


def the_only_worker_could_not_load_it(farm: Farm) -> JobId:
    name = WorkerName("encode-7@gpu-b")
    record_model_problems(farm.engine, name, Phase.ENCODE, {"tiny-wan": "no weights"})
    return farm.submit()[0]


def sent_to_encode(farm: Farm) -> JobId:
    farm.workers()
    (job,) = farm.submit()
    farm.send(job)
    return job


def sent_to_a_busy_encoder(farm: Farm) -> JobId:
    workers = farm.workers()
    first, job = farm.submit(request(1), request(2))
    farm.claim(first, workers[Phase.ENCODE])
    farm.send(job)
    return job


def sent_to_a_leader(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.ENCODED, workers)
    farm.send(job)
    return job


def enough_encoded_ahead(farm: Farm) -> JobId:
    farm.store.publish_limits(look_ahead=8, decode_backlog=8)
    farm.workers()
    *ahead, job = farm.submit(*(request(line) for line in range(1, 10)))
    for other in ahead:
        farm.send(other)
    return job


def much_waits_for_the_vae(farm: Farm) -> JobId:
    workers = farm.workers()
    *before, job = farm.submit(*(request(line) for line in range(1, 10)))
    for other in before:
        farm.bring(other, JobState.DENOISED, workers)
    farm.bring(job, JobState.ENCODED, workers)
    return job


def the_worker_is_busy(farm: Farm) -> JobId:
    workers = farm.workers()
    running, ahead, job = farm.submit(request(1), request(2), request(3))
    farm.bring(running, JobState.DENOISING, workers)
    farm.bring(ahead, JobState.ENCODED, workers)
    farm.bring(job, JobState.ENCODED, workers)
    return job


def all_workers_have_work(farm: Farm) -> JobId:
    workers = farm.workers()
    farm.worker(DIT_TWO, Phase.DIT)
    running, sent, job = farm.submit(request(1), request(2), request(3))
    farm.bring(running, JobState.DENOISING, workers)
    farm.bring(sent, JobState.ENCODED, workers)
    farm.send(sent, DIT_TWO)
    farm.bring(job, JobState.ENCODED, workers)
    return job


def next_to_encode(farm: Farm) -> JobId:
    farm.workers()
    return farm.submit()[0]


def next_to_denoise(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.ENCODED, workers)
    return job


def next_to_decode(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DECODING, workers)
    claim = farm.claims.claim(job, Phase.VAE, 1, workers[Phase.VAE])
    farm.claims.give_back(claim, reason="test")
    return job


def cancelled_while_it_waits(farm: Farm) -> JobId:
    farm.workers()
    (job,) = farm.submit()
    farm.ask_to_cancel(job)
    return job


def cancelled_while_it_runs(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.ask_to_cancel(job)
    return job


def paused_while_it_waits(farm: Farm) -> JobId:
    farm.workers()
    (job,) = farm.submit()
    pause(farm.engine, [job.partition("-")[0]])
    return job


def paused_while_it_is_sent(farm: Farm) -> JobId:
    farm.workers()
    (job,) = farm.submit()
    farm.send(job)
    pause(farm.engine, [job.partition("-")[0]])
    return job


def paused_while_it_runs(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    pause(farm.engine, [job.partition("-")[0]])
    return job


def worker_fell_silent(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.execute("UPDATE workers SET lease_expires_at = now() - interval '7 s' WHERE phase = 'dit'")
    return job


def worker_is_lost(farm: Farm) -> JobId:
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.lose(workers[Phase.DIT])
    return job


def no_scheduler_decides(farm: Farm) -> JobId:
    farm.workers()
    return farm.submit()[0]


def store_is_full(farm: Farm) -> JobId:
    workers = farm.workers()
    first, job = farm.submit(request(1), request(2))
    claim = farm.claim(first, workers[Phase.ENCODE])
    farm.claims.storage_failed(claim, message="the disk is full", max_store_failures=9)
    return job


def store_may_be_full_still(farm: Farm) -> JobId:
    job = store_is_full(farm)
    farm.execute("UPDATE store_health SET probe_after = now()")
    return job


SCENES: dict[str, list[tuple[Scene, str]]] = {
    "no_worker": [
        (no_worker_at_all, r"No encode worker is online\."),
        (no_dit_worker_to_encode_for, r"No DiT worker is online, so nothing is encoded ahead\."),
        (no_vae_worker, r"No VAE worker is online\."),
        (worker_drains, r"No encode worker is online\."),
        (
            the_only_worker_could_not_load_it,
            (
                r"No encode worker is online\. "
                r"encode-7@gpu-b could not load tiny-wan \d+ s ago: no weights"
            ),
        ),
    ],
    "model_not_served": [
        (
            encode_serves_other_models,
            r"None of the online encode workers \(2\) serves the model tiny-wan\.",
        ),
        (
            encode_could_not_load_it,
            (
                r"None of the online encode workers \(2\) serves the model tiny-wan\. "
                r"encode-0@gpu-a could not load tiny-wan \d+ s ago: no weights"
            ),
        ),
        (
            dit_serves_other_models,
            (
                r"None of the online DiT workers \(1\) serves the model tiny-wan, "
                r"so nothing is encoded ahead\."
            ),
        ),
    ],
    "store_failing": [
        (
            store_is_full,
            (
                r"The artifact store has failed for \d+ s, the last time with: the disk is full; "
                r"until a try succeeds, the next in \d s, no new work is sent\."
            ),
        ),
        (
            store_may_be_full_still,
            (
                r"The artifact store has failed for \d+ s, the last time with: the disk is full; "
                r"until a try succeeds, no new work is sent\."
            ),
        ),
    ],
    "message_sent": [
        (sent_to_encode, r"Sent to the queue encode \d+ s ago, not yet taken\."),
        (
            sent_to_a_busy_encoder,
            (
                r"Sent to the queue encode \d+ s ago, not yet taken: every encode worker that "
                r"serves the model tiny-wan is busy \(1\)\."
            ),
        ),
        (sent_to_a_leader, r"Sent to the queue dit\.dit-0@gpu-a \d+ s ago, not yet taken\."),
    ],
    "look_ahead_full": [
        (
            enough_encoded_ahead,
            (
                r"Enough jobs of the model tiny-wan are encoded ahead: 8 for 1 DiT worker "
                r"\(the limit is 8 each\); 8 jobs are ahead\."
            ),
        ),
    ],
    "decode_backlog": [
        (
            much_waits_for_the_vae,
            (
                r"The VAE is behind: 8 jobs wait for it, and no new DiT starts while 8 or more do "
                r"\(VAE workers online: 1\)\."
            ),
        ),
    ],
    "workers_busy": [
        (
            the_worker_is_busy,
            r"The one DiT worker that serves the model tiny-wan is busy; 1 job is ahead\.",
        ),
        (
            all_workers_have_work,
            r"All 2 DiT workers that serve the model tiny-wan are busy; 1 job is ahead\.",
        ),
    ],
    "next_decision": [
        (
            next_to_encode,
            r"Nothing is in its way; no job is ahead; the scheduler decides next\.",
        ),
        (
            next_to_denoise,
            (
                r"1 of 1 DiT workers that serve the model tiny-wan idle; no job is ahead; "
                r"the policy decides next\."
            ),
        ),
        (next_to_decode, r"Nothing is in its way; the scheduler decides next\."),
    ],
    "cancel_requested": [
        (
            cancelled_while_it_waits,
            r"A cancel was requested; the scheduler ends the job at its next decision\.",
        ),
        (
            cancelled_while_it_runs,
            r"A cancel was requested; dit-0@gpu-a has been told to stop\.",
        ),
    ],
    "worker_silent": [
        (
            worker_fell_silent,
            (
                r"dit-0@gpu-a has not renewed its lease, which ran out \d+ s ago; "
                r"the scheduler takes the job back\."
            ),
        ),
        (worker_is_lost, r"dit-0@gpu-a is lost; the scheduler takes the job back\."),
    ],
    "batch_paused": [
        (paused_while_it_waits, r"Its batch is paused; `ddit resume b\w+` has it go on\."),
        (paused_while_it_is_sent, r"Its batch is paused; `ddit resume b\w+` has it go on\."),
        (
            paused_while_it_runs,
            (
                r"Its batch is paused; dit-0@gpu-a gives the job back at its next step boundary; "
                r"`ddit resume b\w+` has it go on\."
            ),
        ),
    ],
    "no_scheduler": [
        (
            no_scheduler_decides,
            r"No scheduler is running: `ddit up` or `ddit scheduler` starts one\.",
        ),
    ],
}
CASES = [
    pytest.param(code, scene, sentence, id=f"{code}-{scene.__name__}")
    for code, scenes in SCENES.items()
    for scene, sentence in scenes
]


@pytest.mark.parametrize(("code", "scene", "sentence"), CASES)
def test_wait_has_its_reason(engine: Engine, code: str, scene: Scene, sentence: str) -> None:
    """Code and sentence are true of the scene, in both views, and agree with the core."""
    farm = Farm(engine)
    job = scene(farm)
    if code == "no_scheduler":
        found = farm.status(job)
    else:
        with scheduler_running(engine):
            found = farm.status(job)
            waiting = {row["job_id"]: row for row in farm.rows("SELECT * FROM waiting_jobs")}
        assert waiting[job]["waiting_because"] == found["waiting_because"]

    assert found["waiting_for"] == code
    assert re.fullmatch(sentence, str(found["waiting_because"]))
    about_it = [command for command in farm.decisions() if _is_about(command, job)]
    match code:
        case "next_decision" | "no_scheduler":
            assert [type(command) for command in about_it] == [Send]
        case "cancel_requested":
            assert [type(command) for command in about_it] in ([Cancel], [Tell])
        case "message_sent" | "workers_busy" | "look_ahead_full" | "decode_backlog":
            assert about_it == []
        case _:
            assert not any(isinstance(command, Send) for command in about_it)


def test_limits_that_no_scheduler_has_said_explain_nothing(farm: Farm) -> None:
    """Without known limits no wait is blamed on them."""
    job = enough_encoded_ahead(farm)
    assert farm.status(job)["waiting_for"] == "look_ahead_full"

    farm.execute("UPDATE leadership SET look_ahead = NULL, decode_backlog = NULL")

    assert farm.status(job)["waiting_for"] == "next_decision"


def test_waiting_jobs_stand_in_order_and_leave_out_who_does_not_wait(farm: Farm) -> None:
    """By priority, then arrival; running and final jobs are not among them."""
    workers = farm.workers()
    done, running, low, high, plain = farm.submit(
        request(1), request(2), request(3, priority=-1), request(4, priority=5), request(5)
    )
    farm.bring(done, JobState.SUCCEEDED, workers)
    farm.bring(running, JobState.DENOISING, workers)

    found = [row["job_id"] for row in farm.rows("SELECT * FROM waiting_jobs")]

    assert found == [high, plain, low]


def test_every_code_has_a_scene_and_is_in_the_comment(engine: Engine) -> None:
    """No reason is untested, and none is unexplained."""
    (view,) = (view for view in describe_views(engine) if view.name == "job_status")
    (comment,) = (c.comment for c in view.columns if c.name == "waiting_for")

    assert set(comment.partition("One of ")[2].rstrip(".").split(", ")) == set(SCENES)


def _is_about(command: object, job: JobId) -> bool:
    return getattr(getattr(command, "job", None), "job_id", None) == job
