from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier
from typing import TypeVar

import psycopg
import pytest
import rows
from sqlalchemy import Engine, text

from ddit_batch.db.moves import SCHEDULER_CHANNEL
from ddit_batch.db.submission import Submission, Wishes, job_id, submit
from ddit_batch.job import BatchId, JobState, work_of
from ddit_batch.request import Request

_T = TypeVar("_T")
AT_ONCE = 6


def submit_file(engine: Engine, requests: list[Request], **changes: object) -> Submission:
    given = {"content_hash": "content", "name": "p.jsonl", "out_url": "videos", **changes}
    return submit(engine, requests, **given)


def at_once(call: Callable[[], _T]) -> list[_T]:
    """What *call* gives to several threads that begin together."""
    barrier = Barrier(AT_ONCE)

    def begin(_: int) -> _T:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(begin, range(AT_ONCE)))


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def test_every_request_becomes_a_queued_job_that_can_be_read_back(engine: Engine) -> None:
    """What the file said is what a worker gets, odd characters included."""
    request = rows.a_request(
        3,
        prompt="a \\ cat\twith \u2028 « ü 猫 », \"quotes\" and 'more'\nlines",
        priority=7,
        metadata=(("a", "1"), ("b", "\\N")),
    )

    batch = submit_file(engine, [request])

    job = rows.row(engine, job_id(batch.batch_id, 3))
    assert job["state"] == JobState.QUEUED
    assert (job["custom_id"], job["line"], job["priority"]) == ("video-3", 3, 7)
    assert (job["height"], job["width"], job["num_frames"], job["steps"]) == (64, 96, 9, 8)
    assert Request.from_json(job["request"]) == request


def test_jobs_arrive_in_the_order_of_their_lines(engine: Engine) -> None:
    """The order of arrival is that of the file, and so is the order of ids."""
    submit_file(engine, [rows.a_request(line) for line in (2, 5, 10, 100)])

    with engine.connect() as connection:
        by_arrival = list(connection.scalars(text("SELECT line FROM jobs ORDER BY seq")))
        by_id = list(connection.scalars(text("SELECT line FROM jobs ORDER BY id")))
    assert by_arrival == by_id == [2, 5, 10, 100]


def test_the_same_content_again_is_the_same_batch(engine: Engine) -> None:
    """Submitting a file twice is safe, and may say anew where the videos go."""
    first = submit_file(engine, [rows.a_request()])
    again = submit_file(engine, [rows.a_request()], out_url="elsewhere")

    assert (first.created, again.created) == (True, False)
    assert (again.batch_id, again.total) == (first.batch_id, 1)
    with engine.connect() as connection:
        out_urls = connection.scalars(text("SELECT out_url FROM batches")).all()
    assert out_urls == ["elsewhere"]
    assert count(engine, "jobs") == 1


def test_other_content_is_another_batch(engine: Engine) -> None:
    """Batches are told apart by their content."""
    one = submit_file(engine, [rows.a_request()], content_hash="one")
    two = submit_file(engine, [rows.a_request()], content_hash="two")

    assert one.batch_id != two.batch_id


def test_submissions_of_the_same_content_at_once_give_one_batch(engine: Engine) -> None:
    """Whoever comes second finds the batch of the first, whole."""
    requests = [rows.a_request(line) for line in range(1, 21)]

    for number in range(10):
        content = {"content_hash": f"content {number}"}
        batches = at_once(partial(submit_file, engine, requests, **content))

        assert len({batch.batch_id for batch in batches}) == 1
        assert sorted(batch.created for batch in batches) == [False] * (AT_ONCE - 1) + [True]
    assert count(engine, "jobs") == 10 * 20


def test_new_makes_a_further_batch_of_the_same_content_each_time(engine: Engine) -> None:
    """With *new*, nothing is taken for a repetition, not even what comes at the same instant."""
    submit_file(engine, [rows.a_request()])

    batches = at_once(lambda: submit_file(engine, [rows.a_request()], new=True))

    assert all(batch.created for batch in batches)
    assert len({batch.batch_id for batch in batches}) == AT_ONCE
    assert count(engine, "batches") == count(engine, "jobs") == 1 + AT_ONCE


def test_content_that_was_repeated_is_still_found_by_a_plain_submission(engine: Engine) -> None:
    """A submission without *new* means the first batch of that content."""
    first = submit_file(engine, [rows.a_request()])
    submit_file(engine, [rows.a_request()], new=True)

    assert submit_file(engine, [rows.a_request()]).batch_id == first.batch_id


def test_a_submission_that_breaks_half_way_leaves_nothing(engine: Engine) -> None:
    """Batch and jobs are one transaction."""

    class PowerCut(Exception):  # noqa: N818 -- an event
        """The process ends in the middle."""

    class Half(list[Request]):
        def __iter__(self) -> object:
            yield from super().__iter__()
            raise PowerCut

    with rows.unchanged(engine), pytest.raises(PowerCut):
        submit_file(engine, Half([rows.a_request(1), rows.a_request(2)]))

    assert submit_file(engine, [rows.a_request(1)]).created


def test_ten_thousand_lines_are_stored_in_seconds(engine: Engine) -> None:
    """A large file costs one copy, not one statement a line."""
    requests = [rows.a_request(line) for line in range(1, 10_001)]

    begun = time.monotonic()
    batch = submit_file(engine, requests)
    took_s = time.monotonic() - begun

    assert took_s < 10
    assert batch.total == count(engine, "jobs") == 10_000


def test_a_submission_wakes_the_scheduler_once_it_is_committed(engine: Engine) -> None:
    """The scheduler need not wait for its next tick."""
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listener:
        listener.execute(f"LISTEN {SCHEDULER_CHANNEL}".encode())

        batch = submit_file(engine, [rows.a_request()])

        (notification,) = listener.notifies(timeout=5, stop_after=1)
    assert notification.payload == f"{batch.batch_id} submitted"


def test_ids_of_jobs_sort_as_their_lines_do() -> None:
    """Lists by id read like the file."""
    ids = [job_id(BatchId("b0"), line) for line in (1, 9, 10, 99_999, 100_000, 999_999)]

    assert ids == sorted(ids)


def wishes_of(engine: Engine) -> tuple[float, datetime | None, datetime]:
    """Share, deadline and creation of the one batch."""
    with engine.connect() as connection:
        query = "SELECT share, deadline, created_at FROM batches"
        return tuple(connection.execute(text(query)).one())


def test_wishes_are_no_part_of_the_content(engine: Engine) -> None:
    """Another share or deadline is the same batch, treated otherwise; what is not said stays."""
    deadline = datetime(2030, 1, 1, 12, tzinfo=UTC)
    first = submit_file(engine, [rows.a_request()], wishes=Wishes(share=2.0, deadline=deadline))
    again = submit_file(engine, [rows.a_request()], wishes=Wishes(share=0.5))

    assert again.batch_id == first.batch_id
    assert wishes_of(engine)[:2] == (0.5, deadline)
    submit_file(engine, [rows.a_request()])
    assert wishes_of(engine)[:2] == (0.5, deadline)


def test_deadline_from_the_submission_is_not_put_off_by_repeating_it(engine: Engine) -> None:
    """The command that goes on with a batch says the same again."""
    in_six_hours = Wishes(deadline=timedelta(hours=6))
    submit_file(engine, [rows.a_request()], wishes=in_six_hours)
    share, deadline, created_at = wishes_of(engine)
    assert (share, deadline) == (1.0, created_at + timedelta(hours=6))

    submit_file(engine, [rows.a_request()], wishes=in_six_hours)

    assert wishes_of(engine)[1] == deadline


def test_job_knows_its_work_from_the_beginning(engine: Engine) -> None:
    """Pixels x frames x steps: it needs no profile."""
    request = rows.a_request(1, num_inference_steps=7)

    batch = submit_file(engine, [request])

    job = rows.row(engine, job_id(batch.batch_id, 1))
    assert job["work"] == work_of(request.shape, 7) == 64 * 96 * 9 * 7
