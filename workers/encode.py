"""``ddit.encode``: text to embeddings. Texts that were encoded before are not encoded again."""

from __future__ import annotations

import torch

from ddit_batch import artifact_keys
from ddit_batch.db.claim import Claim
from ddit_batch.db.engine import persist
from ddit_batch.dispatch import TASK_NAME
from ddit_batch.job import Phase
from ddit_batch.model_config import ModelConfig
from ddit_batch.phases.encode import embeddings_digest, encode
from ddit_batch.phases.handoff import embeddings_to_bytes
from ddit_batch.phases.models.base import Encoder, ModelFamily
from workers.app import PhaseTask, app
from workers.attempt import OUTAGE_S, perform
from workers.cancels import stop_if_cancelled
from workers.runtime import Runtime
from workers.understanding import addressed


def load_part(
    family: ModelFamily, config: ModelConfig, source: str, device: torch.device
) -> Encoder:
    """The part of a model that this phase needs."""
    return family.load_encoder(config, source, device)


@app.task(name=TASK_NAME[Phase.ENCODE], bind=True, base=PhaseTask)
def encode_task(self: PhaseTask[Encoder], job_id: str, attempt: int, protocol: int = 0) -> None:
    """One attempt at the encode phase of one job."""
    whom = addressed(protocol, job_id=job_id, attempt=attempt)
    perform(self.runtime, Phase.ENCODE, whom, encode_job)


def encode_job(runtime: Runtime[Encoder], claim: Claim) -> None:
    """Put the embeddings into the store, under a key made of their content."""
    encoder = runtime.models.part(claim.request.model)
    config = runtime.models.configs[claim.request.model]
    key = artifact_keys.embeddings_key(embeddings_digest(config, claim.request))
    stop_if_cancelled(runtime, claim)
    found = runtime.store.exists(key)
    if not found:
        runtime.store.put(key, embeddings_to_bytes(encode(encoder, claim.request)))
    persist(
        lambda: runtime.claims.finish_encode(claim, embeddings_key=key, found=found),
        give_up_s=OUTAGE_S,
        what=f"finish {claim.job_id}",
    )
