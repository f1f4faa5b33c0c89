"""The life of a job: which state may follow which, and why. The table is the law.

Rule 1: every state change of a job is a row of ``TRANSITIONS``; the database code looks the target
up here and writes nothing that the table does not know.
Rule 2: this module knows no database, no worker and no clock. Who may pull which trigger, and what
else changes with it, is in ``db/``.

The states themselves, with who enters and leaves each and what happens if the process that holds
it dies, are explained at ``job.JobState``.
"""

from __future__ import annotations

from enum import StrEnum

from ddit_batch.errors import IllegalTransition
from ddit_batch.job import LIVE_STATES, JobState


class Trigger(StrEnum):
    """Why a job moves. The word stands in ``job_events.trigger``."""

    CLAIM = "claim"
    """A worker takes the job's next phase."""
    FINISH = "finish"
    """The phase is done and its output is in the store."""
    GIVE_BACK = "give_back"
    """The worker stops on purpose (drain, preemption) and returns the job."""
    WORKER_LOST = "worker_lost"
    """The scheduler found that the worker's lease ran out, or that it was replaced."""
    TIMED_OUT = "timed_out"
    """The worker lives, but did not go on with the job for too long: it was taken away."""
    ATTEMPT_FAILED = "attempt_failed"
    """The phase raised, and the job has tries left."""
    HANDOFF_LOST = "handoff_lost"
    """The input of the phase is missing or unreadable: the phase before must run again."""
    FAIL = "fail"
    """No tries left, or a cause that another try cannot mend."""
    CANCEL = "cancel"
    """Asked for by the user, and confirmed by whoever held the job."""
    RETRY_ENCODE = "retry_encode"
    """A user retries a failed job that has no embeddings."""
    RETRY_DIT = "retry_dit"
    """A user retries a failed job that has embeddings, perhaps a checkpoint."""
    RETRY_VAE = "retry_vae"
    """A user retries a failed job that has latents."""


_S = JobState
_T = Trigger

TRANSITIONS: dict[tuple[JobState, Trigger], JobState] = {
    # encode
    (_S.QUEUED, _T.CLAIM): _S.ENCODING,
    (_S.ENCODING, _T.FINISH): _S.ENCODED,
    (_S.ENCODING, _T.GIVE_BACK): _S.QUEUED,
    (_S.ENCODING, _T.WORKER_LOST): _S.QUEUED,
    (_S.ENCODING, _T.TIMED_OUT): _S.QUEUED,
    (_S.ENCODING, _T.ATTEMPT_FAILED): _S.QUEUED,
    # dit
    (_S.ENCODED, _T.CLAIM): _S.DENOISING,
    (_S.DENOISING, _T.FINISH): _S.DENOISED,
    (_S.DENOISING, _T.GIVE_BACK): _S.ENCODED,
    (_S.DENOISING, _T.WORKER_LOST): _S.ENCODED,
    (_S.DENOISING, _T.TIMED_OUT): _S.ENCODED,
    (_S.DENOISING, _T.ATTEMPT_FAILED): _S.ENCODED,
    (_S.DENOISING, _T.HANDOFF_LOST): _S.QUEUED,
    # vae
    (_S.DENOISED, _T.CLAIM): _S.DECODING,
    (_S.DECODING, _T.FINISH): _S.SUCCEEDED,
    (_S.DECODING, _T.GIVE_BACK): _S.DENOISED,
    (_S.DECODING, _T.WORKER_LOST): _S.DENOISED,
    (_S.DECODING, _T.TIMED_OUT): _S.DENOISED,
    (_S.DECODING, _T.ATTEMPT_FAILED): _S.DENOISED,
    (_S.DECODING, _T.HANDOFF_LOST): _S.ENCODED,
    # the end, from any live state
    **{(state, _T.FAIL): _S.FAILED for state in LIVE_STATES},
    **{(state, _T.CANCEL): _S.CANCELLED for state in LIVE_STATES},
    # a failed job goes back to the last state whose handoff exists
    (_S.FAILED, _T.RETRY_ENCODE): _S.QUEUED,
    (_S.FAILED, _T.RETRY_DIT): _S.ENCODED,
    (_S.FAILED, _T.RETRY_VAE): _S.DENOISED,
}


def next_state(state: JobState, trigger: Trigger) -> JobState:
    """The state that *trigger* leads to from *state*.

    Raises:
        IllegalTransition: The table does not know the move.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        known = ", ".join(sorted(t for s, t in TRANSITIONS if s is state)) or "none: it is final"
        raise IllegalTransition(
            f"a job cannot {trigger} from state {state} (legal there: {known})"
        ) from None
