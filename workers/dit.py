"""``ddit.dit``: the leader's denoising loop, step by step, with checkpoints, alone or in a group.

At every step boundary: say how far it is, offer a checkpoint, make sure that the job is still ours,
do what the mailbox says, and have the group do the same.
"""

from __future__ import annotations

import logging
from contextlib import closing

import torch

from ddit_batch import artifact_keys
from ddit_batch.db.claim import Claim
from ddit_batch.db.engine import persist
from ddit_batch.dispatch import TASK_NAME
from ddit_batch.errors import ArtifactError, GroupBroken
from ddit_batch.job import Phase, queue_of
from ddit_batch.model_config import ModelConfig
from ddit_batch.phases import checkpoint
from ddit_batch.phases.checkpoint import CheckpointWriter
from ddit_batch.phases.dit import Verdict, denoise
from ddit_batch.phases.handoff import embeddings_from_bytes, latents_to_bytes
from ddit_batch.phases.models.base import Denoiser, DenoisingState, Embeddings, ModelFamily
from workers.accounts import Accounts
from workers.app import app
from workers.attempt import OUTAGE_S, StoppedOnPurpose, perform
from workers.boundary import StepBoundary
from workers.cancels import confirm_cancel
from workers.checkpoint_pace import CheckpointPace
from workers.checkpoints import JobCheckpoints
from workers.crew import Crew, leading
from workers.dit_runtime import DitRuntime, DitTask
from workers.understanding import addressed

logger = logging.getLogger(__name__)


def load_part(
    family: ModelFamily, config: ModelConfig, source: str, device: torch.device
) -> Denoiser:
    """The part of a model that this phase needs."""
    return family.load_denoiser(config, source, device)


@app.task(name=TASK_NAME[Phase.DIT], bind=True, base=DitTask)
def dit_task(self: DitTask, job_id: str, attempt: int, protocol: int = 0) -> None:
    """One attempt at the DiT phase of one job."""
    whom = addressed(protocol, job_id=job_id, attempt=attempt)
    perform(self.runtime, Phase.DIT, whom, denoise_job)


def denoise_job(runtime: DitRuntime, claim: Claim) -> None:
    """Denoise from the newest checkpoint, or from noise, until done or told to stop."""
    denoiser = runtime.models.part(claim.request.model)
    checkpoints = JobCheckpoints(runtime, claim)
    accounts = Accounts(runtime.claims, claim)
    with (
        closing(CheckpointWriter(checkpoints.write)) as writer,
        leading(runtime.former, claim, denoiser, accounts) as crew,
    ):
        state = _begin(runtime, claim, denoiser, checkpoints)
        crew.gather()
        boundary = StepBoundary(runtime, claim, checkpoints, _pace(runtime, claim, writer), crew)
        state, verdict = _denoise(denoiser, state, boundary, crew)
        accounts.settle()
        if verdict is Verdict.RELEASE:
            _give_back(runtime, claim, state, checkpoints, writer)
    if verdict is Verdict.CANCEL:
        confirm_cancel(runtime, claim, f"cancelled at step {state.step}", *checkpoints.keys)
    _finish(runtime, claim, state)
    checkpoints.forget()


def _pace(runtime: DitRuntime, claim: Claim, writer: CheckpointWriter) -> CheckpointPace:
    settings = runtime.settings
    return CheckpointPace(
        writer,
        claim.job_id,
        at_most=settings.checkpoint_every_steps,
        # Others in the group wait for this leader's next word. While the database is away nobody
        # goes on for longer than a lease in any case.
        patience_s=max(settings.lease_s, settings.group_timeout_s / 2),
        stop=runtime.stop_requested,
    )


def _denoise(
    denoiser: Denoiser, state: DenoisingState, boundary: StepBoundary, crew: Crew
) -> tuple[DenoisingState, Verdict]:
    """Denoise, and go on from the last completed step whenever the group breaks.

    What breaks a group need not be a lost member: any error of a step in a group counts. If it was
    the job's own fault, it comes again when the leader takes that step alone. Only a follower whose
    memory is full says so, and ends the attempt.
    """
    while True:
        try:
            return denoise(denoiser, state, boundary)
        except GroupBroken:
            assert boundary.state is not None, "a group exists from the first boundary on"
            state = boundary.state
            crew.fall_back(state)


def _begin(
    runtime: DitRuntime, claim: Claim, denoiser: Denoiser, checkpoints: JobCheckpoints
) -> DenoisingState:
    """The state to go on from. An unreadable checkpoint costs its steps, not the job."""
    assert claim.embeddings_key is not None, "a job that is denoising has embeddings"
    embeddings = _embeddings(runtime, claim.embeddings_key)
    key = claim.checkpoint_key
    while key is not None:
        try:
            data = runtime.store.get(key)
            return denoiser.resume(claim.request, embeddings, checkpoint.from_bytes(data))
        except ArtifactError as exc:
            key = checkpoints.lost(key, exc)
    return denoiser.start(claim.request, embeddings)


def _embeddings(runtime: DitRuntime, key: str) -> Embeddings:
    data = runtime.store.get(key)
    try:
        return embeddings_from_bytes(data)
    except ArtifactError:
        runtime.store.delete(key)  # else the next encode would find it and think it good
        raise


def _give_back(
    runtime: DitRuntime,
    claim: Claim,
    state: DenoisingState,
    checkpoints: JobCheckpoints,
    writer: CheckpointWriter,
) -> None:
    """Checkpoint where it stands and return the job. Always raises."""
    if state.step:
        writer.offer(checkpoint.take(state))
        if not writer.flush(timeout_s=runtime.settings.drain_s):
            logger.warning("the last checkpoint was not written in time")
    persist(
        lambda: runtime.claims.give_back(
            claim, reason="released at a step boundary", checkpoint=checkpoints.newest
        ),
        give_up_s=runtime.settings.drain_s,
        what=f"give back {claim.job_id}",
    )
    raise StoppedOnPurpose(f"given back at step {state.step}")


def _finish(runtime: DitRuntime, claim: Claim, state: DenoisingState) -> None:
    key = artifact_keys.latents_key(claim.job_id, claim.attempt)
    runtime.store.put(key, latents_to_bytes(state.latents))
    persist(
        lambda: runtime.claims.finish_dit(claim, latents_key=key, vae_queue=queue_of(Phase.VAE)),
        give_up_s=OUTAGE_S,
        what=f"finish {claim.job_id}",
    )
