"""The Celery app as Flower runs it: without a phase, and with our way of logging.

Executed by ``ddit flower`` as ``celery -A workers.flower flower``.
"""

from __future__ import annotations

import logging

from ddit_batch.logs import set_up_logging
from workers.app import app, settings

__all__ = ["app"]

set_up_logging(settings)
# It asks before the first worker is up, and warns that nobody answered; their events tell it.
logging.getLogger("flower.inspector").setLevel(logging.ERROR)
