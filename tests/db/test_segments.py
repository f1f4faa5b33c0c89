"""What a leader accounts of its groups: segments without gap or overlap, whatever is repeated."""

from __future__ import annotations

from itertools import pairwise

import pytest
import rows
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ddit_batch.db.claim import Claim
from ddit_batch.db.claims import ClaimStore
from ddit_batch.job import JobId, Phase, WorkerName

A, B, C = (WorkerName(f"dit-{number}@host") for number in range(3))
Segment = tuple[int, int | None, list[str], str, int]


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """Every test has jobs of its own."""
    return shared_engine


@pytest.fixture
def claims(engine: Engine) -> ClaimStore:
    """Jobs as their holders see them."""
    return ClaimStore(engine)


@pytest.fixture
def claim(engine: Engine) -> Claim:
    """A job that one worker has begun, of 8 steps."""
    return rows.holding(engine, Phase.DIT, by=rows.registered(engine, name=A))


def segments(engine: Engine, job: JobId) -> list[Segment]:
    """Steps, workers, reason and plan of each."""
    query = (
        "SELECT from_step, to_step, workers, reason, plan_epoch FROM segments "
        "WHERE job_id = :job ORDER BY id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), {"job": job})]


def ages_s(engine: Engine, job: JobId) -> list[tuple[float, float | None]]:
    """How long ago each began and ended."""
    query = (
        "SELECT extract(epoch FROM clock_timestamp() - started_at)::float8, "
        "extract(epoch FROM clock_timestamp() - ended_at)::float8 "
        "FROM segments WHERE job_id = :job ORDER BY id"
    )
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), {"job": job})]


def test_change_of_group_ends_a_segment_and_begins_another(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """At the step of the change; the job's row says how many denoise it."""
    assert claims.change_group(claim, epoch=5, workers=(A, B), step=3, reason="grow")

    assert segments(engine, claim.job_id) == [
        (0, 3, [A], "start", 0),
        (3, None, [A, B], "grow", 5),
    ]
    row = rows.row(engine, claim.job_id)
    assert (row["dop"], row["step"]) == (2, 3)


def test_change_at_the_step_at_which_a_segment_began_is_that_segment(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """A job that was sent to a group has it from its first step."""
    claims.change_group(claim, epoch=5, workers=(A, B), step=0, reason="grow")
    assert segments(engine, claim.job_id) == [(0, None, [A, B], "start", 5)]

    claims.change_group(claim, epoch=6, workers=(A,), step=0, reason="shrink")
    assert segments(engine, claim.job_id) == [(0, None, [A], "start", 6)]


def test_group_that_broke_before_its_first_step_is_accounted(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """The time until somebody noticed was its own, not that of who goes on alone."""
    claims.change_group(claim, epoch=5, workers=(A, B), step=2, reason="grow")

    claims.change_group(claim, epoch=5, workers=(A,), step=2, reason="group_broken")

    assert segments(engine, claim.job_id)[1:] == [
        (2, 2, [A, B], "grow", 5),
        (2, None, [A], "group_broken", 5),
    ]


def test_change_that_was_written_already_is_not_written_again(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """The answer was lost on its way, and time has passed."""
    for workers, step, reason in (((A, B), 2, "grow"), ((A,), 4, "group_broken")):
        change = {"epoch": 5, "workers": workers, "step": step, "reason": reason}
        assert claims.change_group(claim, **change)
        with rows.unchanged(engine):
            assert claims.change_group(claim, **change)


def test_change_that_is_written_late_is_dated_back(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """The database was away; but no segment ends before it began."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE segments SET started_at = now() - interval '50 s' WHERE job_id = :job"),
            {"job": claim.job_id},
        )

    claims.change_group(claim, epoch=5, workers=(A, B), step=2, reason="grow", ago_s=30.0)
    claims.change_group(claim, epoch=6, workers=(A,), step=4, reason="shrink", ago_s=90.0)

    first, second, third = ages_s(engine, claim.job_id)
    assert first == pytest.approx((50.0, 30.0), abs=5.0)
    assert second == pytest.approx((30.0, 30.0), abs=5.0)
    assert third[0] == second[1] or third[0] == pytest.approx(second[1], abs=1e-3)


def test_who_lost_the_job_accounts_nothing(
    engine: Engine, claims: ClaimStore, claim: Claim
) -> None:
    """Its steps belong to an attempt that is over."""
    claims.give_back(claim, reason="x")
    again = rows.claimed(engine, claim.job_id)

    with rows.unchanged(engine):
        assert not claims.change_group(claim, epoch=5, workers=(A, B), step=3, reason="grow")
    assert claims.change_group(again, epoch=6, workers=(A, C), step=3, reason="grow")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([(A,), (A, B), (A, C), (A, B, C)]),
            st.sampled_from(["grow", "shrink", "group_broken"]),
            st.integers(1, 2),
        ),
        max_size=6,
    )
)
def test_segments_cover_every_step_once(
    engine: Engine,
    claims: ClaimStore,
    changes: list[tuple[int, tuple[WorkerName, ...], str, int]],
) -> None:
    """Whatever changes, at whatever steps, said once or twice."""
    claim = rows.holding(engine, Phase.DIT)
    step = 0
    for epoch, (steps, workers, reason, times) in enumerate(changes, start=1):
        step = min(8, step + steps)
        for _ in range(times):
            assert claims.change_group(
                claim, epoch=epoch, workers=workers, step=step, reason=reason
            )
    assert rows.row(engine, claim.job_id)["dop"] == (len(changes[-1][1]) if changes else 1)
    rows.finished(engine, claim)

    found = segments(engine, claim.job_id)
    assert (found[0][0], found[-1][1]) == (0, 8)
    assert all(one[1] == next_one[0] for one, next_one in pairwise(found))
    ages = ages_s(engine, claim.job_id)
    assert all(abs(one[1] - following[0]) < 1e-3 for one, following in pairwise(ages))
