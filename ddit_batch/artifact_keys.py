"""The names of things in the artifact store, and of the files that users see.

Pure. A key holds the attempt that writes it, so that two tries at the same phase never write to the
same place; which attempt counts, Postgres knows. Nothing reads a key apart again; only whether a
file can be one of ours at all is told by its name.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from ddit_batch.errors import ArtifactError
from ddit_batch.job import JobId, Phase

_KEY = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")
_MADE_HERE = re.compile(
    r"jobs/[^/]+/(dit|vae)\.a\d+/"
    r"(step-\d{6,}\.pt|latents\.safetensors|video\.mp4|manifest\.json|\.[0-9a-f]{32}~)"
    r"|embeddings/[0-9a-f]{2}/([0-9a-f]+\.safetensors|\.[0-9a-f]{32}~)"
)
"""The keys below, and the temporary files beside them that a killed writer leaves."""
_MAX_FILE_NAME_BYTES = 240  # Linux allows 255; a copy beside it may want a longer name
_PLAIN = frozenset(" ._-")
_NOT_FIRST = frozenset(" .-")  # hidden files, and names that look like options


def checkpoint_key(job_id: JobId, attempt: int, step: int) -> str:
    """The latents and solver state after *step* steps."""
    return f"{_folder(job_id, Phase.DIT, attempt)}/step-{step:06d}.pt"


def latents_key(job_id: JobId, attempt: int) -> str:
    """The finished latents: the handoff from DiT to VAE."""
    return f"{_folder(job_id, Phase.DIT, attempt)}/latents.safetensors"


def artifact_key(job_id: JobId, attempt: int) -> str:
    """The video."""
    return f"{_folder(job_id, Phase.VAE, attempt)}/video.mp4"


def manifest_key(job_id: JobId, attempt: int) -> str:
    """What the video was made from, and how: JSON."""
    return f"{_folder(job_id, Phase.VAE, attempt)}/manifest.json"


def embeddings_key(digest: str) -> str:
    """The handoff from encode to DiT. It is found by content, so that equal texts share one.

    *digest* is a hex digest over everything that decides the embeddings.
    """
    return f"embeddings/{digest[:2]}/{digest}.safetensors"


def is_made_here(path: str) -> bool:
    """Whether *path*, from the top of a store, is one that the functions above or a put make."""
    return bool(_MADE_HERE.fullmatch(path))


def check_key(key: str) -> str:
    """*key* itself, known to stay inside the store.

    Raises:
        ArtifactError: It is absolute, has an empty part, ``.`` or ``..``, or an odd character.
    """
    if not is_key(key):
        raise ArtifactError(
            f"the key {key!r} is not one of the artifact store: a key is relative, without empty "
            "parts or '..', of letters, digits and ._=- only"
        )
    return key


def is_key(text: str) -> bool:
    """Whether *text* is a legal key: see ``check_key``."""
    return bool(_KEY.fullmatch(text)) and {".", ".."}.isdisjoint(text.split("/"))


def file_name_for(custom_id: str, suffix: str) -> str:
    """The file name that the user sees for *custom_id*, such as ``a cat.mp4``.

    Different ids have different names. Letters, digits and marks of any script, and `` ._-`` stay
    as they are (the latter three not in front); all else is percent-escaped. A name that would be
    too long is cut and gets a part of the id's SHA-256, after a ``~``, which no other name holds.
    """
    stem = "".join(
        c if _stays(c) and not (at == 0 and c in _NOT_FIRST) else _escaped(c)
        for at, c in enumerate(custom_id)
    )
    stem = stem or "%"  # else the suffix's dot would come first
    room = _MAX_FILE_NAME_BYTES - len(suffix.encode())
    if len(stem.encode()) > room:
        digest = hashlib.sha256(custom_id.encode(errors="surrogatepass")).hexdigest()[:32]
        stem = stem.encode()[: room - len(digest) - 1].decode(errors="ignore") + "~" + digest
    return stem + suffix


def _folder(job_id: JobId, phase: Phase, attempt: int) -> str:
    return f"jobs/{job_id}/{phase}.a{attempt}"


def _stays(char: str) -> bool:
    return char in _PLAIN or unicodedata.category(char)[0] in "LMN"


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
