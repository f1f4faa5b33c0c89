"""What goes through the broker beside the messages of Celery, and how it is read again.

A broker is shared memory: what lies there may be of another release, cut off, or nobody's of us. So
whatever is read is checked in full against the class that it claims to be, and what does not fit is
``NotUnderstood``: never half a letter, never a number that Postgres cannot hold.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from ddit_batch.errors import DditError
from ddit_batch.job import Incarnation, JobId, WorkerName
from ddit_batch.protocol import PROTOCOL
from ddit_batch.snapshot import Instruction, Progress

Attempt = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""As Postgres holds them; the first is 1."""
Epoch = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Likewise; 0 is before every plan."""

_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
_NAME = r"^[^\x00-\x20\x7f]{1,200}$"
_Job = Annotated[JobId, Field(pattern=_ID)]
_Worker = Annotated[WorkerName, Field(pattern=_NAME)]
_Life = Annotated[Incarnation, Field(ge=0, le=2**63 - 1)]

_LONGEST_COMPLAINT = 200


class NotUnderstood(DditError):  # noqa: N818 -- a finding, not a failure
    """Something in the broker is not what should be there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The contents of a job's mailbox: state, not a message. It may be read any number of times."""

    attempt: Attempt
    """The attempt that it is meant for."""
    instruction: Instruction
    group: tuple[_Worker, ...]
    """The workers that the job is to have; () if it is to be given back."""
    epoch: Epoch
    """The plan that *group* comes from. Not above the epoch of the group that the job has: it is to
    stay as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One life of one worker, as a member of a group."""

    name: _Worker
    incarnation: _Life


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Tells a worker to form a group. It may come several times: the epoch tells."""

    job_id: _Job
    attempt: Attempt
    """Of the DiT phase."""
    epoch: Epoch
    model: Annotated[str, Field(pattern=_NAME)]
    members: Annotated[tuple[Member, ...], Field(min_length=1)]
    """The leader first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What the message of a task says: whom it is about."""

    job_id: _Job
    attempt: Attempt
    epoch: Epoch = 0
    """The plan, where there is one."""


_Kind = TypeVar("_Kind")
_LETTER, _CALL, _ADDRESS = TypeAdapter(Letter), TypeAdapter(Call), TypeAdapter(Address)
_PROGRESS = TypeAdapter(Progress)
_JOB_ID: TypeAdapter[JobId] = TypeAdapter(_Job)


def write(what: Letter | Call) -> str:
    """*what* as the broker holds it."""
    return json.dumps({"protocol": PROTOCOL, **asdict(what)})


def read_letter(data: bytes) -> Letter:
    """The letter that ``write`` has made *data* of.

    Raises:
        NotUnderstood: It has not, or in another protocol, where it might mean something else.
    """
    return _read(_LETTER, "letter", _in_our_protocol(data))


def read_call(data: bytes) -> Call:
    """The call that ``write`` has made *data* of.

    Raises:
        NotUnderstood: It has not, or in another protocol.
    """
    return _read(_CALL, "call", _in_our_protocol(data))


def read_report(job_id: bytes, data: bytes) -> tuple[JobId, Progress]:
    """How far a job is, by one entry of the reports.

    Raises:
        NotUnderstood: It is no such entry.
    """
    try:
        key = _JOB_ID.validate_python(job_id.decode(), strict=True)
    except (ValidationError, UnicodeDecodeError) as exc:
        raise NotUnderstood(f"a report of {job_id[:80]!r}, which is no job") from exc
    return key, _read(_PROGRESS, "report", data)


def read_address(**said: object) -> Address:
    """Whom a task is about, by the arguments of its message.

    Raises:
        NotUnderstood: They are no such thing.
    """
    return _read(_ADDRESS, "task", json.dumps(said).encode())


def read_task_id(data: bytes) -> str:
    """The id of the task whose Celery message *data* is.

    Raises:
        NotUnderstood: It is none.
    """
    fields = _object(data)
    headers = fields.get("headers")
    found = headers.get("id") if isinstance(headers, dict) else None
    if not isinstance(found, str):
        raise NotUnderstood(f"a task without an id: {data[:80]!r}")
    return found


def _in_our_protocol(data: bytes) -> bytes:
    spoken = _object(data).get("protocol", 0)
    if spoken != PROTOCOL or isinstance(spoken, bool):
        raise NotUnderstood(f"protocol {spoken!r:.40}, this process speaks {PROTOCOL}")
    return data


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise NotUnderstood(f"no JSON: {data[:80]!r}") from exc
    if not isinstance(fields, dict):
        raise NotUnderstood(f"JSON, but no object: {data[:80]!r}")
    return fields


def _read(adapter: TypeAdapter[_Kind], name: str, data: bytes) -> _Kind:
    try:
        return adapter.validate_json(data, strict=True)
    except ValidationError as exc:
        raise NotUnderstood(_complaint(name, exc)) from exc


def _complaint(name: str, exc: ValidationError) -> str:
    """One line: the first thing that is wrong, and where."""
    first = exc.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    found = f"{first['input']!r}"[:80]
    return f"no {name}: {where}: {first['msg']}, not {found}"[:_LONGEST_COMPLAINT]
