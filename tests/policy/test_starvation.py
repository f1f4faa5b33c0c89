from __future__ import annotations

import pytest
from clusters import crew, running, waiting
from fake_costs import COSTS, P144, P240, P360

from ddit_batch.policy.starvation import starvation_s


def starved_s(job: object) -> float:
    return starvation_s(job, COSTS.cost(job.model, job.shape))


@pytest.mark.parametrize(
    ("shape", "dop", "step", "granted", "expected_s"),
    [
        (P360, 1, 10, 0, 10 * (0.6154 - 0.1761)),
        (P360, 2, 20, 0, 20 * (0.3323 - 0.1761)),
        (P360, 2, 20, 15, 5 * (0.3323 - 0.1761)),
        (P240, 1, 30, 0, 30 * (0.271 - 0.149)),
        (P360, 4, 29, 0, 0.0),
        (P144, 1, 29, 0, 0.0),
        (P360, 1, 7, 7, 0.0),
    ],
)
def test_starvation_is_the_time_lost_since_the_last_grant(
    shape: object, dop: int, step: int, granted: int, expected_s: float
) -> None:
    """Steps since then, by what each took longer than at the optimal dop."""
    job = running(1, shape, *crew(dop), step=step, granted_step=granted)

    assert starved_s(job) == pytest.approx(expected_s)


def test_job_beyond_its_optimal_dop_never_starves_less_than_not_at_all() -> None:
    """Where its steps are faster; where they are slower, it has lost that."""
    assert starved_s(running(1, P360, *crew(8), step=9)) == 0
    assert starved_s(running(1, P144, *crew(4), step=10)) == pytest.approx(10 * (0.103 - 0.096))


def test_job_that_waits_has_not_starved() -> None:
    """Its wait is not starvation: the paper's looks at running requests only."""
    assert starved_s(waiting(1, P360, step=10)) == 0


def test_group_that_a_lost_worker_left_odd_counts_as_a_legal_one() -> None:
    """Three of four steps as slowly as two."""
    job = running(1, P360, *crew(3), step=10)

    assert starved_s(job) == pytest.approx(10 * (0.3323 - 0.1761))
