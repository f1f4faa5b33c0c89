"""Keeps from Celery what is no message: one bad byte in a queue would end the worker that takes it.

kombu parses what it pops outside of any ``try``, so that text that is no JSON, or JSON without the
fields that it expects, ends the process. ``guard`` has it use a client that looks first: what is no
envelope is dropped with a line in the log. Nothing is lost by that: the scheduler finds that the
message of a job is gone, and sends it again.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import Annotated, Any, Literal

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, Transport
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ddit_batch.job import Phase

logger = logging.getLogger(__name__)


def guard() -> None:
    """Have all connections of this process to Redis or Valkey look before they take a message."""
    TRANSPORT_ALIASES["redis"] = f"{__name__}:{GuardedTransport.__name__}"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _DeliveryInfo(_Part):
    exchange: str
    routing_key: str


class _Properties(_Part):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]


def _decodable(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError("no base64") from exc
    return text


class _Envelope(_Part):
    """What kombu needs of any message, be it a task or an answer to ``inspect``."""

    body: Annotated[str, AfterValidator(_decodable)]
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    headers: dict[str, Any]
    properties: _Properties


class _TaskHeaders(_Part):
    """Those that make a worker do something; our tasks are for now, and for as long as it takes."""

    task: str = Field(pattern=r"^ddit\.[a-z]+$")
    id: str = Field(min_length=1, max_length=400)
    eta: None = None
    expires: None = None
    retries: int = Field(default=0, ge=0)
    timelimit: tuple[None, None] = (None, None)
    group: None = None
    shadow: None = None


class _Task(_Envelope):
    headers: _TaskHeaders  # type: ignore[assignment]  # narrower than any message's


class _Embedded(_Part):
    """What follows the task."""

    callbacks: None = None
    errbacks: None = None
    chord: None = None
    chain: list[dict[str, Any]] | None = None


_ENVELOPE, _TASK = TypeAdapter(_Envelope), TypeAdapter(_Task)
_TASK_BODY: TypeAdapter[tuple[Any, ...]] = TypeAdapter(tuple[list[Any], dict[str, Any], _Embedded])


def check(queue: bytes, data: bytes) -> None:
    """Raise ValueError if *data*, from *queue*, is nothing that could be delivered."""
    if queue.decode(errors="replace").partition(".")[0] not in frozenset(Phase):
        _ENVELOPE.validate_json(data)
        return
    body = _TASK.validate_json(data).body
    _TASK_BODY.validate_json(base64.b64decode(body))


class _Client(redis.Redis):
    """Shows kombu no message that ``check`` refuses: to it, the wait has ended with nothing."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """The answer to a command."""
        found = super().parse_response(  # type: ignore[no-untyped-call]
            connection, command_name, **options
        )
        if command_name != "BRPOP" or not found:
            return found
        queue, data = found
        try:
            check(queue, data)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            logger.warning(
                "dropped from the queue %s, because it is no message (%s: %s): %.80r",
                queue.decode(errors="replace"),
                ".".join(map(str, first["loc"])) or "it",
                first["msg"],
                data,
                extra={"action": "not_understood"},
            )
            return None
        return found


class GuardedChannel(Channel):  # type: ignore[misc]  # kombu has no types
    """A channel whose client looks first."""

    def _get_client(self) -> type[redis.Redis]:
        return _Client


class GuardedTransport(Transport):  # type: ignore[misc]  # kombu has no types
    """kombu's own, with such channels."""

    Channel = GuardedChannel
