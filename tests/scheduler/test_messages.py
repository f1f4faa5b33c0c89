"""Whatever lies in the broker, it is read as exactly what it should be, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.control import LiveControl
from ddit_batch.job import Incarnation, JobId, WorkerName
from ddit_batch.messages import (
    Address,
    Call,
    Letter,
    Member,
    NotUnderstood,
    read_address,
    read_call,
    read_letter,
    read_report,
    read_task_id,
    write,
)
from ddit_batch.protocol import PROTOCOL
from ddit_batch.snapshot import Instruction, Progress

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.from_regex(r"[a-z]+-[0-9]{1,3}@[a-z.]{1,20}", fullmatch=True).map(WorkerName)
JOBS = st.from_regex(r"b[0-9a-f]{10}-[0-9]{6}", fullmatch=True).map(JobId)
ATTEMPTS = st.integers(1, 2**31 - 1)
EPOCHS = st.integers(0, 2**63 - 1)
LETTERS = st.builds(
    Letter,
    attempt=ATTEMPTS,
    instruction=st.sampled_from(Instruction),
    group=st.lists(NAMES, max_size=4).map(tuple),
    epoch=EPOCHS,
)
MEMBERS = st.builds(Member, name=NAMES, incarnation=EPOCHS.map(Incarnation))
CALLS = st.builds(
    Call,
    job_id=JOBS,
    attempt=ATTEMPTS,
    epoch=EPOCHS,
    model=st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True),
    members=st.lists(MEMBERS, min_size=1, max_size=4).map(tuple),
)


@st.composite
def spoilt(draw: st.DrawFn, whole: st.SearchStrategy[Letter] | st.SearchStrategy[Call]) -> bytes:
    """Something written as it should be, but with a field lost or of any other content."""
    fields = json.loads(write(draw(whole)))
    name = draw(st.sampled_from(sorted(fields)))
    if draw(st.booleans()):
        del fields[name]
    else:
        fields[name] = draw(JSON)
    return json.dumps(fields).encode()


ANYTHING = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(LETTERS)
def test_letter_is_read_as_it_was_written(letter: Letter) -> None:
    """Every field, exactly."""
    assert read_letter(write(letter).encode()) == letter


@given(CALLS)
def test_call_is_read_as_it_was_written(call: Call) -> None:
    """Every field, exactly."""
    assert read_call(write(call).encode()) == call


@pytest.mark.parametrize("read", [read_letter, read_call, read_task_id])
@given(data=ANYTHING)
def test_anything_else_is_not_understood(read: Callable[[bytes], object], data: bytes) -> None:
    """Bytes of no kind, JSON of any kind: one error of ours, which names it in one short line."""
    try:
        read(data)
    except NotUnderstood as exc:
        said = str(exc)
        assert "\n" not in said
        assert len(said) <= 250
    else:
        assert read is read_task_id
        assert isinstance(json.loads(data)["headers"]["id"], str)


@given(spoilt(LETTERS))
def test_spoilt_letter_is_read_whole_or_not_at_all(data: bytes) -> None:
    """What is read is again a letter: written and read it stays the same."""
    try:
        letter = read_letter(data)
    except NotUnderstood:
        return
    assert read_letter(write(letter).encode()) == letter
    assert json.loads(data)["protocol"] == PROTOCOL


@given(spoilt(CALLS))
def test_spoilt_call_is_read_whole_or_not_at_all(data: bytes) -> None:
    """Likewise; there is a leader, and every number is one that Postgres can hold."""
    try:
        call = read_call(data)
    except NotUnderstood:
        return
    assert read_call(write(call).encode()) == call
    assert call.members
    assert 0 <= call.epoch < 2**63


@given(job_id=st.binary(max_size=20) | JOBS.map(str.encode), data=ANYTHING)
def test_report_is_a_number_of_steps_of_a_job_or_nothing(job_id: bytes, data: bytes) -> None:
    """No key that is no job, no count that is none."""
    with pytest.raises(NotUnderstood):
        read_report(job_id, data)


@given(
    job_id=JOBS,
    attempt=st.integers(),
    step=st.integers(),
    step_s=st.floats() | st.integers(),
)
def test_report_of_impossible_numbers_is_refused(
    job_id: JobId, attempt: int, step: int, step_s: float
) -> None:
    """Infinite or negative seconds, and what Postgres could not hold."""
    data = json.dumps({"attempt": attempt, "step": step, "step_s": step_s}).encode()
    possible = 1 <= attempt < 2**31 and 0 <= step < 2**31 and 0 <= step_s <= 1e6

    try:
        found = read_report(job_id.encode(), data)
    except NotUnderstood:
        assert not possible
    else:
        assert possible
        assert found == (job_id, Progress(attempt=attempt, step=step, step_s=step_s))


@given(job_id=JOBS, attempt=ATTEMPTS, epoch=EPOCHS)
def test_task_is_about_the_job_that_it_says(job_id: JobId, attempt: int, epoch: int) -> None:
    """Those that the scheduler sends are all understood."""
    expected = Address(job_id=job_id, attempt=attempt, epoch=epoch)
    assert read_address(job_id=job_id, attempt=attempt, epoch=epoch) == expected
    assert read_address(job_id=job_id, attempt=attempt).attempt == attempt


@given(st.dictionaries(st.sampled_from(["job_id", "attempt", "epoch", "x"]), JSON))
def test_task_is_about_a_job_or_about_nothing(said: dict[str, object]) -> None:
    """Its arguments come from a message, and go into SQL and into names of files."""
    try:
        address = read_address(**said)
    except NotUnderstood:
        return
    assert isinstance(address, Address)
    assert not set(address.job_id) & set("/\\\x00\n ")
    assert 1 <= address.attempt < 2**31


@pytest.mark.parametrize("job_id", ["../x", "a/b", "", "a\x00", "-x", "a b", "a\n", 7, None, ["a"]])
def test_task_about_no_job_is_refused(job_id: object) -> None:
    """The traps, by name."""
    with pytest.raises(NotUnderstood):
        read_address(job_id=job_id, attempt=1)


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"", b"null", b"[1]", b'{"attempt": 1}'])
def test_garbage_among_the_reports_is_dropped_and_the_others_are_read(
    control: LiveControl, garbage: bytes
) -> None:
    """A scheduler that stumbled over it would stumble for ever."""
    report = Progress(attempt=1, step=3, step_s=0.5)
    control.report(JobId("b0-000001"), report)
    control._redis.hset("ddit:progress", "b0-000002", garbage)
    control._redis.hset("ddit:progress", b"\xff", garbage)

    assert control.reports() == {JobId("b0-000001"): report}
    assert control._redis.hkeys("ddit:progress") == [b"b0-000001"]


def test_garbage_in_a_queue_hides_no_task(control: LiveControl) -> None:
    """The tasks beside it still count as waiting."""
    message = json.dumps({"headers": {"id": "b0-000001.dit.a1"}})
    for data in (b"\xff", b"{", b"[]", b'{"headers": 1}', message.encode(), b'{"headers": {}}'):
        control._redis.rpush("dit.dit-0@host", data)

    assert control.waiting_task_ids(["dit.dit-0@host"]) == {"b0-000001.dit.a1"}


def test_garbage_in_a_mailbox_means_no_change(control: LiveControl) -> None:
    """As an empty one does."""
    control._redis.set("ddit:mailbox:b0-000001", b"\xff{")
    control._redis.rpush("ddit:calls:7", b'"x"')

    assert control.read_letter(JobId("b0-000001")) is None
    assert control.next_call(Incarnation(7), 0.01) is None
