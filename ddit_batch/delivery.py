"""The files that users see: ``<out>/<custom_id>.mp4`` and ``.json``, made from the store.

Made by the VAE worker after its commit, and made again by whoever finds them missing.
"""

from __future__ import annotations

from ddit_batch.artifact import ArtifactStore
from ddit_batch.artifact_keys import file_name_for


def deliver(
    store: ArtifactStore,
    out_url: str,
    *,
    custom_id: str,
    artifact_key: str,
    manifest_key: str,
    anew: bool = False,
) -> None:
    """Make both files, the video last: who sees the video finds its manifest.

    *anew*: because somebody else may have died over it.

    Raises:
        ArtifactError: The store has lost the artifact.
        RetryablePhaseError: The storage refused.
    """
    store.deliver(manifest_key, out_url, file_name_for(custom_id, ".json"), anew=anew)
    store.deliver(artifact_key, out_url, file_name_for(custom_id, ".mp4"), anew=anew)
