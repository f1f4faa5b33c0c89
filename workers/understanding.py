"""Messages in another protocol than ours: left alone, so that the scheduler sends them again."""

from __future__ import annotations

import logging
import time

from celery.exceptions import Ignore

from ddit_batch.protocol import PROTOCOL

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""A worker that refuses is idle at once and would take the next message of a shared queue before
those who work: this leaves it to them."""


def check_protocol(protocol: int, ids: dict[str, object]) -> None:
    """Refuse a message that is not meant in our protocol.

    Raises:
        Ignore: It might mean something else; nothing was claimed.
    """
    if protocol == PROTOCOL:
        return
    logger.warning(
        "a message of protocol %d is left alone, this worker speaks %d: install the scheduler's "
        "release of ddit-batch here",
        protocol,
        PROTOCOL,
        extra={"action": "not_understood", **ids},
    )
    time.sleep(PAUSE_S)
    raise Ignore
