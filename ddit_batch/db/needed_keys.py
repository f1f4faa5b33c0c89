"""Which keys of the artifact store somebody may yet ask for."""

from __future__ import annotations

from ddit_batch.db.reading import Source, ask

_NEEDED = """
SELECT embeddings_key AS key FROM jobs WHERE embeddings_key IS NOT NULL
UNION SELECT artifact_key FROM jobs WHERE artifact_key IS NOT NULL
UNION SELECT manifest_key FROM jobs WHERE manifest_key IS NOT NULL
UNION SELECT checkpoint_key FROM jobs
    WHERE checkpoint_key IS NOT NULL AND state NOT IN ('succeeded', 'cancelled')
UNION SELECT older_checkpoint_key FROM jobs
    WHERE older_checkpoint_key IS NOT NULL AND state NOT IN ('succeeded', 'cancelled')
UNION SELECT latents_key FROM jobs
    WHERE latents_key IS NOT NULL AND state NOT IN ('succeeded', 'cancelled')
"""


def needed_keys(source: Source) -> frozenset[str]:
    """What jobs name, but for checkpoints and latents of those that succeeded or were cancelled.

    Nothing reads those again. A failed job keeps all that a retry would use.
    """
    return frozenset(row["key"] for row in ask(source, _NEEDED))
