from __future__ import annotations

from fake_costs import COSTS
from worlds import (
    LIMITS,
    a_held_job,
    a_job,
    a_sent_job,
    a_worker,
    a_world,
    shared_workers,
)

from ddit_batch.job import JobState, Phase
from ddit_batch.policy.static import Static
from ddit_batch.scheduler.commands import Send
from ddit_batch.scheduler.core import decide
from ddit_batch.snapshot import Snapshot

S = JobState


def sent(world: Snapshot) -> list[tuple[int, str]]:
    """Which jobs go to which shared queue, in order; what is placed on DiT workers is left out."""
    commands = decide(world, Static(costs=COSTS, dop=1), LIMITS)
    sends = [command for command in commands if isinstance(command, Send)]
    return [(send.job.seq, send.queue) for send in sends if not send.group]


def queued(*numbers: int, **changes: object) -> list[object]:
    return [a_job(number, **changes) for number in numbers]


def test_jobs_are_encoded_ahead_up_to_the_bound_for_each_dit_worker() -> None:
    """First come, first served; the rest wait in Postgres, where they can be counted and moved."""
    encode, _ = shared_workers()

    one = a_world(encode, a_worker(0), *queued(3, 1, 2, 4, 5))
    two = a_world(encode, a_worker(0), a_worker(1), *queued(3, 1, 2, 4, 5))

    assert sent(one) == [(1, "encode"), (2, "encode")]
    assert sent(two) == [(n, "encode") for n in (1, 2, 3, 4)]


def test_urgent_jobs_are_encoded_first() -> None:
    """Higher priority goes before earlier arrival."""
    encode, _ = shared_workers()
    jobs = [*queued(1, 2, 3), a_job(4, priority=1), a_job(5, priority=-1)]

    assert sent(a_world(encode, a_worker(0), *jobs)) == [(4, "encode"), (1, "encode")]


def test_jobs_on_their_way_count_against_the_bound() -> None:
    """In the queue, at a worker, or encoded and waiting."""
    encode, _ = shared_workers()
    ahead = {
        "sent": a_sent_job(1, S.QUEUED),
        "held": a_held_job(1, S.ENCODING, encode),
        "encoded": a_job(1, S.ENCODED, model=encode.name),
    }
    worker = a_worker(0, models=frozenset({"tiny-wan", encode.name}))
    blocked = a_held_job(9, S.DENOISING, worker)

    for word, job in ahead.items():
        same = [a_job(n, model=job.model) for n in (2, 3)]
        encoder = a_worker(90, Phase.ENCODE, models=worker.models)
        assert sent(a_world(encoder, worker, blocked, job, *same)) == [(2, "encode")], word


def test_jobs_that_have_workers_do_not_count_against_the_bound() -> None:
    """They are not ahead any more: sent to their leader in this decision, before it, or running."""
    encode, _ = shared_workers()
    workers = [a_worker(n) for n in range(3)]
    placed = [
        a_job(1, S.ENCODED),
        a_sent_job(2, S.ENCODED, workers[1].name),
        a_held_job(3, S.DENOISING, workers[2]),
    ]

    world = a_world(encode, *workers, *placed, *queued(*range(11, 20)))

    assert sent(world) == [(n, "encode") for n in range(11, 17)]


def test_nothing_is_encoded_that_nobody_denoises() -> None:
    """Neither without any DiT worker nor without one for the model nor for one that drains."""
    encode = a_worker(90, Phase.ENCODE, models=frozenset({"tiny-wan", "other"}))

    assert sent(a_world(encode, *queued(1))) == []
    assert sent(a_world(encode, a_worker(0), *queued(1, model="other"))) == []
    assert sent(a_world(encode, a_worker(0, draining=True), *queued(1))) == []


def test_nothing_is_sent_that_nobody_encodes() -> None:
    """A shared queue is for workers that are there."""
    other = a_worker(90, Phase.ENCODE, models=frozenset({"other"}))
    draining = a_worker(90, Phase.ENCODE, draining=True)

    for encode in (other, draining):
        assert sent(a_world(encode, a_worker(0), *queued(1))) == []


def test_each_model_has_a_look_ahead_of_its_own() -> None:
    """A flood of one model, waiting for its busy worker, does not idle the worker of another."""
    both = frozenset({"small", "large"})
    encode = a_worker(90, Phase.ENCODE, models=both)
    small = a_worker(0, models=frozenset({"small"}))
    large = a_worker(1, models=frozenset({"large"}))
    running = a_held_job(1, S.DENOISING, large, model="large")
    ahead = [a_job(n, S.ENCODED, model="large") for n in (2, 3)]
    waiting = [*queued(4, 5, model="large"), *queued(6, 7, 8, model="small")]

    world = a_world(encode, small, large, running, *ahead, *waiting)

    assert sent(world) == [(6, "encode"), (7, "encode")]


def test_worker_of_two_models_looks_ahead_for_both() -> None:
    """It may need either next."""
    models = frozenset({"small", "large"})
    encode, dit = a_worker(90, Phase.ENCODE, models=models), a_worker(0, models=models)
    jobs = [*queued(1, 2, 3, model="large"), *queued(4, 5, 6, model="small")]

    assert sent(a_world(encode, dit, *jobs)) == [(n, "encode") for n in (1, 2, 4, 5)]


def test_job_that_came_back_from_vae_is_sent_again() -> None:
    """The first attempt follows DiT by itself; later ones are the scheduler's."""
    _, vae = shared_workers()
    first, back = a_sent_job(1, S.DENOISED), a_job(2, S.DENOISED)

    assert sent(a_world(vae, first, back)) == [(2, "vae")]


def test_job_that_nobody_decodes_waits() -> None:
    """Until there is a worker that serves its model."""
    other = a_worker(91, Phase.VAE, models=frozenset({"other"}))

    assert sent(a_world(other, a_job(1, S.DENOISED))) == []


def test_decoding_goes_on_under_back_pressure() -> None:
    """It is what relieves it."""
    _, vae = shared_workers()

    assert sent(a_world(vae, a_job(1, S.DENOISED), waiting_to_decode=1000)) == [(1, "vae")]
