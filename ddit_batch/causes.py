"""What a job can fail of: the one table of causes, with what each means and what to do about it.

Pure. The code stands in SQL (``jobs.failure_code``), in ``errors.jsonl``, in metrics and in logs;
meaning and advice are also in the view ``failure_causes``, which a migration made and a test
compares with this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """A cause of failure, by its code. What each means is in ``ABOUT``."""

    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    GROUP_BROKEN = "group_broken"
    HANDOFF_LOST = "handoff_lost"
    STORAGE_FAILED = "storage_failed"
    MODEL_UNAVAILABLE = "model_unavailable"
    TIMEOUT = "timeout"
    PHASE_FAILED = "phase_failed"
    UNEXPECTED_ERROR = "unexpected_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a user should know of a cause."""

    meaning: str
    tries: str
    """How often an attempt with this cause is repeated, for people."""
    advice: str


_FAILURES = "as DDIT_MAX_FAILURES says"

ABOUT: dict[Cause, About] = {
    Cause.OUT_OF_MEMORY: About(
        meaning="The video does not fit into the memory of a worker's device.",
        tries="never: it would not fit the next time",
        advice="Use a smaller size or fewer frames, a smaller dtype in the model config, or a "
        "device with more memory; more workers for one video help only as far as its "
        "activations fill it.",
    ),
    Cause.WORKER_LOST: About(
        meaning="Too many workers died while they worked on the job, so that it is held to be "
        "what kills them.",
        tries="as DDIT_MAX_WORKER_LOSSES says",
        advice="See the workers' logs for how they died; try the line alone, or with a smaller "
        "size; `ddit retry` gives the job all of its tries again.",
    ),
    Cause.GROUP_BROKEN: About(
        meaning="The workers that denoised the job together could not go on, again and again.",
        tries=_FAILURES,
        advice="See the workers' logs; check the network and the GPUs of that node, or limit "
        "the dop.",
    ),
    Cause.HANDOFF_LOST: About(
        meaning="What one phase made for the next was missing or damaged, again and again.",
        tries=_FAILURES,
        advice="See whether something deletes or changes files in the store; then `ddit retry`.",
    ),
    Cause.STORAGE_FAILED: About(
        meaning="The artifact store did not take or give what it should: full, forbidden or away.",
        tries="as DDIT_MAX_STORE_FAILURES says; while the store fails for all, without a limit",
        advice="Free some space, or set DDIT_ARTIFACTS_URL to a place that works; then `ddit "
        "retry`.",
    ),
    Cause.MODEL_UNAVAILABLE: About(
        meaning="The model could not be loaded or is not set up on the worker.",
        tries="never: it is not this job's to mend",
        advice="Check DDIT_MODELS and the model's files on the workers; `ddit doctor` says "
        "what is missing; then `ddit retry`.",
    ),
    Cause.TIMEOUT: About(
        meaning="The job did not go on for too long, on every worker that tried it.",
        tries="as DDIT_MAX_TIMEOUTS says",
        advice="See the workers' logs; try a smaller size; if it only takes long, raise "
        "DDIT_HUNG_AFTER_S or the limit of its phase.",
    ),
    Cause.PHASE_FAILED: About(
        meaning="The phase cannot do what the request asks for.",
        tries="never: the same request would fail again",
        advice="The message says what is wrong: change the line and submit it again.",
    ),
    Cause.UNEXPECTED_ERROR: About(
        meaning="An error that ddit-batch does not know.",
        tries=_FAILURES,
        advice="The worker's log has the details; `ddit retry` tries again; if it comes back, "
        "report it.",
    ),
}


def advice_for(code: str | None) -> str | None:
    """What to do about *code*; None if it is none of ours."""
    return ABOUT[Cause(code)].advice if code in set(Cause) else None


def cause_table() -> str:
    """All causes for ``docs/failures.md``."""
    rows = ["| code | means | tried again | what to do |", "|---|---|---|---|"]
    rows += [f"| `{c}` | {a.meaning} | {a.tries} | {a.advice} |" for c, a in ABOUT.items()]
    return "\n".join(rows)
