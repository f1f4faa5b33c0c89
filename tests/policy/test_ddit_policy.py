from __future__ import annotations

from clusters import crew, decoding, denoised, plan, running, waiting
from fake_costs import COSTS, P144, P240, P360
from worlds import a_sent_job

from ddit_batch.job import JobState
from ddit_batch.policy.ddit import Ddit, Decode, Order, Promotion

DDIT = Ddit(costs=COSTS)
WAITING_FIRST = Ddit(costs=COSTS, order=Order.WAITING_FIRST)


def test_job_starts_at_its_optimal_dop() -> None:
    """The paper's B: 1 for 144p, 2 for 240p, 4 for 360p, however many more idle."""
    jobs = [waiting(1, P144), waiting(2, P240), waiting(3, P360)]

    assert plan(DDIT, *crew(8), *jobs) == {1: [0], 2: [1, 2], 3: [3, 4, 5, 6]}


def test_job_starts_at_once_on_what_is_idle() -> None:
    """min(B, idle), rounded down to a legal dop; the odd worker goes to the next in line."""
    jobs = [waiting(1, P360), waiting(2, P360), waiting(3, P360)]

    assert plan(DDIT, *crew(3), *jobs) == {1: [0, 1], 2: [2]}


def test_jobs_start_in_order_of_arrival() -> None:
    """Priority goes before."""
    jobs = [waiting(2, P144), waiting(1, P144), waiting(3, P144, priority=1)]

    assert plan(DDIT, *crew(2), *jobs) == {3: [0], 1: [1]}


def test_hungry_job_is_promoted_until_it_has_its_optimal_dop() -> None:
    """Its leader and its first workers stay in place."""
    workers = crew(8)

    hungry = running(1, P360, workers[5], step=3)

    assert plan(DDIT, *workers, hungry) == {1: [5, 0, 1, 2]}


def test_promotion_is_rounded_down_to_a_legal_dop() -> None:
    """With two workers more, dop 1 becomes 2; 360p knows no 3."""
    workers = crew(3)

    assert plan(DDIT, *workers, running(1, P360, workers[0])) == {1: [0, 1]}


def test_job_at_its_optimal_dop_is_not_promoted() -> None:
    """Though 360p would be a third faster at dop 8, and four workers idle."""
    workers = crew(8)

    assert plan(DDIT, *workers, running(1, P360, *workers[:4])) == {1: [0, 1, 2, 3]}


def test_job_that_has_starved_longest_is_promoted_first() -> None:
    """10 steps at dop 1 lost 10 * (0.6154 - 0.1761) = 4.4 s; 20 at dop 2 only 3.1 s."""
    workers = crew(6)
    at_2 = running(1, P360, *workers[:2], step=20)
    at_1 = running(2, P360, workers[2], step=10)

    assert plan(DDIT, *workers, at_2, at_1) == {1: [0, 1], 2: [2, 3, 4, 5]}


def test_starvation_counts_from_the_last_grant() -> None:
    """The same two, but the second was given its worker five steps ago: 2.2 s."""
    workers = crew(6)
    at_2 = running(1, P360, *workers[:2], step=20)
    at_1 = running(2, P360, workers[2], step=10, granted_step=5)

    assert plan(DDIT, *workers, at_2, at_1) == {1: [0, 1, 3, 4], 2: [2, 5]}


def test_equally_starved_jobs_are_promoted_in_order() -> None:
    """Priority, then arrival."""
    workers = crew(4)
    first, second = running(1, P240, workers[1]), running(2, P240, workers[0])

    assert plan(DDIT, *workers[:3], first, second) == {1: [1, 2], 2: [0]}
    urgent = running(2, P240, workers[0], priority=1)
    assert plan(DDIT, *workers[:3], first, urgent) == {1: [1], 2: [0, 2]}


def test_order_says_who_comes_first_when_workers_fall_idle() -> None:
    """Hungry running jobs, or those that wait: the source does not say."""
    workers = crew(4)
    things = [*workers, running(1, P360, workers[0]), waiting(2, P240)]

    assert plan(DDIT, *things) == {1: [0, 1, 2, 3]}
    assert plan(WAITING_FIRST, *things) == {1: [0, 3], 2: [1, 2]}


def test_nobody_is_shrunk_or_preempted_for_those_who_wait() -> None:
    """Not even above the optimal dop, where another policy may have put it."""
    workers = crew(8)
    wide = running(1, P360, *workers)

    assert plan(WAITING_FIRST, *workers, wide, waiting(2, P144, priority=9)) == {1: [*range(8)]}


def test_pending_promotion_is_kept() -> None:
    """The leader has been told, and will act at its next boundary."""
    workers = crew(4)
    group = tuple(worker.name for worker in workers)
    told = running(1, P360, workers[0], pending=group)

    assert plan(WAITING_FIRST, *workers, told, waiting(2, P144)) == {1: [0, 1, 2, 3]}


def test_job_that_is_to_shrink_is_not_promoted_before_it_has() -> None:
    """Another policy told it to; a group that loses some and gains others at once there is not."""
    workers = crew(8)
    told = running(1, P360, *workers[4:], pending=(workers[4].name,))

    assert plan(DDIT, *workers, told) == {1: [4]}


def test_what_a_worker_does_comes_before_what_was_sent_to_it() -> None:
    """A job that arrived earlier was sent to a worker that another has by now."""
    workers = crew(1)
    sent = a_sent_job(1, JobState.ENCODED, workers[0].name, model="open-sora", shape=P144)

    assert plan(DDIT, *workers, sent, running(2, P144, workers[0])) == {2: [0]}


def test_job_that_is_sent_to_its_leader_is_not_promoted() -> None:
    """It does not run yet: nobody would hear."""
    workers = crew(4)
    sent = a_sent_job(1, JobState.ENCODED, workers[0].name, model="open-sora", shape=P360)

    assert plan(DDIT, *workers, sent) == {1: [0]}


def test_cancelled_job_is_not_promoted() -> None:
    """It stops at its next boundary."""
    workers = crew(4)

    cancelled = running(1, P360, workers[0], cancel_requested=True)

    assert plan(DDIT, *workers, cancelled, waiting(2, P240)) == {1: [0], 2: [1, 2]}


def test_leader_decodes_alone_and_the_others_are_free_at_once() -> None:
    """The master has the latents; of four workers, three go to those who wait."""
    workers = crew(4)
    done = denoised(1, P360, workers[2], workers[0], workers[1], workers[3])

    assert plan(DDIT, *workers, done, waiting(2, P240), waiting(3, P144)) == {
        1: [2],
        2: [0, 1],
        3: [3],
    }


def test_decode_comes_before_promotion_and_before_what_waits() -> None:
    """Its last leader is busy: any worker will do, and only one is idle."""
    workers = crew(3)
    things = [
        *workers,
        running(1, P360, workers[0], step=9),
        decoding(2, P144, workers[1]),
        denoised(3, P360, workers[0]),
        waiting(4, P144, priority=9),
    ]

    assert plan(DDIT, *things) == {1: [0], 2: [1], 3: [2]}
    assert plan(WAITING_FIRST, *things) == {1: [0], 2: [1], 3: [2]}


def test_group_that_lost_a_follower_goes_on_with_a_legal_number() -> None:
    """Three are left of four; 360p knows no 3; the others are idle again, and grow it later."""
    workers = crew(4)
    running_on = running(1, P360, *workers, step=5)

    assert plan(DDIT, workers[0], workers[1], workers[3], running_on) == {1: [0, 1]}


def test_ablations_switch_off_what_they_say() -> None:
    """No promotion; the whole group held for the decode."""
    workers = crew(4)
    hungry, done = running(1, P360, workers[0]), denoised(2, P360, *workers)

    fixed = Ddit(costs=COSTS, promotion=Promotion.OFF)
    coupled = Ddit(costs=COSTS, decode=Decode.GROUP)

    assert plan(fixed, *workers, hungry) == {1: [0]}
    assert plan(coupled, *workers, done, waiting(3, P144)) == {2: [0, 1, 2, 3]}
