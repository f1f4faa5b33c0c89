"""Why a job that ran has given its workers back: from the last decision that saw it run."""

from __future__ import annotations

from ddit_batch.decision_record import DecisionRecord
from ddit_batch.explain.seen import Seen, seen_in
from ddit_batch.job import JobId, JobState
from ddit_batch.policy.base import Explains


def why_given_back(record: DecisionRecord, job_id: JobId) -> tuple[str, ...]:
    """What that decision had in mind; () if it let the job run on, or did not see it run.

    Raises:
        ConfigError: This release has no such policy as made the decision.
    """
    seen = seen_in(record, job_id)
    if seen is None or seen.job.state is not JobState.DENOISING or not seen.job.group:
        return ()
    job = seen.job
    if job.paused:
        return (f"At step {job.step} of {job.steps} its batch was paused.",)
    if seen.target[:1] == job.group[:1]:
        return ()
    at = f"At step {job.step} of {job.steps}"
    stopping = [w.name for w in record.snapshot.workers if w.name in job.group and w.draining]
    if stopping:
        return (f"{at} it was to leave {', '.join(stopping)}, which takes no new work.",)
    return (f"{at} the policy wanted {_for_whom(seen)} instead.", *_own_words(seen))


def _for_whom(seen: Seen) -> str:
    """Whom its workers were for, as far as that decision had given them on."""
    group = seen.job.group
    takers = [
        job_id
        for job_id, target in sorted(seen.plan.items())
        if job_id != seen.job.job_id and set(target).intersection(group)
    ]
    if takers:
        return f"its workers for {', '.join(takers)}"
    return f"it on {', '.join(seen.target)}" if seen.target else f"{', '.join(group)} for others"


def _own_words(seen: Seen) -> tuple[str, ...]:
    if not isinstance(seen.policy, Explains):
        return ()
    return seen.policy.explain(seen.record.snapshot, seen.job)
