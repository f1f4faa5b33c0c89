"""Which decisions of a live run go on record, and that recording them harms nobody.

The driver shows every decision after it has carried it out, so no command waits for its record. A
decision that did something is recorded, at most so many a second; the others now and then, sooner
if jobs have moved on since, so that the log has a recent picture of a cluster at rest. What was
left out to keep the pace is made up for by the next decision that is shown, whatever that did: its
picture is newer. On a large cluster a record takes longer; then there are fewer, so that all of
them take a small share of the time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.db.decision_log import DecisionLog
from ddit_batch.decision_record import is_news, record_of
from ddit_batch.errors import LeadershipLost
from ddit_batch.policy.base import Policy
from ddit_batch.scheduler.commands import Command
from ddit_batch.scheduler.core import Limits
from ddit_batch.snapshot import Snapshot

logger = logging.getLogger(__name__)

QUIET_S = 20.0
"""A decision that did nothing is recorded when none was for so long."""
SETTLED_S = 5.0
"""Or for so long, if a job has changed its state, workers or message since."""
SHARE = 0.02
"""Of the time, that recording may take."""
REST_S = 30.0
"""After a failure nothing is recorded for so long."""
PRUNE_EVERY = 64
"""Records between two looks at the bounds of the log."""


class DecisionRecorder:
    """Records decisions of one term, at most *per_s* a second. Losing it loses nothing."""

    def __init__(
        self, log: DecisionLog, *, per_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._gap_s = 1.0 / per_s
        self._clock = clock
        self._before: tuple[Command, ...] = ()
        self._owed = True
        """Something was done that no record shows; so it is at the beginning of a term."""
        self._picture: frozenset[object] = frozenset()
        """The jobs of the last record, as far as a change of them is worth another one."""
        self._not_before_s = clock()
        self._last_s = clock()
        self._written = 0

    def saw(
        self, snapshot: Snapshot, policy: Policy, limits: Limits, commands: tuple[Command, ...]
    ) -> None:
        """Look at a decision that was carried out; record it if its turn has come.

        A record that cannot be written is not missed by anybody: the log says why there is none.

        Raises:
            LeadershipLost: The term is over.
        """
        now_s = self._clock()
        self._owed = self._owed or is_news(commands, self._before)
        self._before = commands
        if now_s < self._not_before_s or not self._is_due(snapshot, now_s - self._last_s):
            return
        try:
            self._write(snapshot, policy, limits, commands)
        except LeadershipLost:
            raise
        except (SQLAlchemyError, OSError, TypeError, ValueError) as exc:
            # A value that has no form in JSON is our bug, and no reason to stop scheduling.
            logger.warning("not recorded: %s", exc, extra={"action": "decision_not_recorded"})
            self._not_before_s = now_s + REST_S
            return
        took_s = self._clock() - now_s
        self._owed = False
        self._picture = _picture(snapshot)
        self._last_s = now_s
        self._not_before_s = now_s + max(self._gap_s, took_s / SHARE)

    def _is_due(self, snapshot: Snapshot, quiet_s: float) -> bool:
        return (
            self._owed
            or quiet_s >= QUIET_S
            or (quiet_s >= SETTLED_S and _picture(snapshot) != self._picture)
        )

    def _write(
        self, snapshot: Snapshot, policy: Policy, limits: Limits, commands: tuple[Command, ...]
    ) -> None:
        record = record_of(snapshot, policy, limits, commands, term=self._log.term)
        if not self._log.write(record):
            logger.debug("decision too long to record", extra={"action": "decision_too_long"})
        if self._written % PRUNE_EVERY == 0:
            self._log.prune()
        self._written += 1


def _picture(snapshot: Snapshot) -> frozenset[object]:
    return frozenset((job.job_id, job.state, job.group, job.message) for job in snapshot.jobs)
