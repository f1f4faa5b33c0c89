"""Messages that a worker does not understand: left alone, so that the scheduler sends them again.

A message in another protocol than ours might mean something else; one whose arguments no scheduler
would send is nobody's of us, and must reach neither Postgres nor the log as it is.
"""

from __future__ import annotations

import logging
import time

from celery.exceptions import Ignore

from ddit_batch.messages import Address, NotUnderstood, read_address
from ddit_batch.protocol import PROTOCOL

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""A worker that refuses is idle at once and would take the next message of a shared queue before
those who work: this leaves it to them."""


def addressed(protocol: object, **said: object) -> Address:
    """Whom a task is about, by what its message has *said*.

    Raises:
        Ignore: It is not meant in our protocol, or says nothing that could be; nothing was claimed.
    """
    if protocol != PROTOCOL:
        logger.warning(
            "a message of protocol %.40r is left alone, this worker speaks %d: install the "
            "scheduler's release of ddit-batch here",
            protocol,
            PROTOCOL,
            extra={"action": "not_understood", **_ids(said)},
        )
        time.sleep(PAUSE_S)
        raise Ignore
    try:
        return read_address(**said)
    except NotUnderstood as exc:
        logger.warning("left alone: %s", exc, extra={"action": "not_understood"})
        raise Ignore from exc


def _ids(said: dict[str, object]) -> dict[str, object]:
    return {name: f"{value}"[:100] for name, value in said.items()}
