"""``ddit.vae``: latents to frames to an mp4 file with its manifest, under the user's name."""

from __future__ import annotations

import torch

from ddit_batch import artifact_keys
from ddit_batch.db.claim import Claim
from ddit_batch.db.deliveries import Delivery
from ddit_batch.db.engine import persist
from ddit_batch.db.history import phase_spans, segment_spans
from ddit_batch.dispatch import TASK_NAME
from ddit_batch.job import Phase
from ddit_batch.manifest import Manifest, sha256_hex
from ddit_batch.model_config import ModelConfig
from ddit_batch.phases.handoff import latents_from_bytes
from ddit_batch.phases.models.base import Decoder, Frames, ModelFamily
from ddit_batch.phases.mp4 import encode_mp4
from ddit_batch.phases.vae import decode
from ddit_batch.phases.versions import versions
from workers.app import app
from workers.attempt import OUTAGE_S, perform
from workers.cancels import stop_if_cancelled
from workers.understanding import addressed
from workers.vae_runtime import VaeRuntime, VaeTask


def load_part(
    family: ModelFamily, config: ModelConfig, source: str, device: torch.device
) -> Decoder:
    """The part of a model that this phase needs."""
    return family.load_decoder(config, source, device)


@app.task(name=TASK_NAME[Phase.VAE], bind=True, base=VaeTask)
def vae_task(self: VaeTask, job_id: str, attempt: int, protocol: int = 0) -> None:
    """One attempt at the VAE phase of one job."""
    whom = addressed(protocol, job_id=job_id, attempt=attempt)
    perform(self.runtime, Phase.VAE, whom, decode_job)


def decode_job(runtime: VaeRuntime, claim: Claim) -> None:
    """Put video and manifest into the store; they count once the commit names them."""
    decoder = runtime.models.part(claim.request.model)
    assert claim.latents_key is not None, "a job that is decoding has latents"
    stop_if_cancelled(runtime, claim)
    latents = latents_from_bytes(runtime.store.get(claim.latents_key))
    frames = decode(decoder, latents)
    stop_if_cancelled(runtime, claim)
    video = encode_mp4(frames, claim.request.fps)
    stop_if_cancelled(runtime, claim)
    video_key = artifact_keys.artifact_key(claim.job_id, claim.attempt)
    manifest_key = artifact_keys.manifest_key(claim.job_id, claim.attempt)
    runtime.store.put(video_key, video)
    runtime.store.put(manifest_key, _manifest(runtime, claim, frames, video).to_bytes())
    persist(
        lambda: runtime.claims.finish_vae(claim, artifact_key=video_key, manifest_key=manifest_key),
        give_up_s=OUTAGE_S,
        what=f"finish {claim.job_id}",
    )
    _after_success(runtime, claim, video_key, manifest_key)


def _manifest(runtime: VaeRuntime, claim: Claim, frames: Frames, video: bytes) -> Manifest:
    return Manifest(
        job_id=claim.job_id,
        request=claim.request,
        model=runtime.models.configs[claim.request.model],
        versions=versions(),
        sha256=sha256_hex(video),
        frames_sha256=sha256_hex(frames.tobytes()),
        size_bytes=len(video),
        phases=phase_spans(runtime.engine, claim.job_id),
        segments=segment_spans(runtime.engine, claim.job_id),
    )


def _after_success(runtime: VaeRuntime, claim: Claim, video_key: str, manifest_key: str) -> None:
    """The user's names, and the latents away. The job has succeeded whatever happens here."""
    if claim.out_url is not None:
        runtime.deliverer.make(
            Delivery(
                job_id=claim.job_id,
                custom_id=claim.request.custom_id,
                out_url=claim.out_url,
                artifact_key=video_key,
                manifest_key=manifest_key,
                latents_key=claim.latents_key,
            )
        )
    else:
        runtime.deliverer.tidy(claim.job_id, claim.latents_key)
