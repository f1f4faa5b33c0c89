"""The manifest: the JSON file beside each video that says what it was made from, and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ddit_batch.db.history import PhaseSpan, SegmentSpan
from ddit_batch.job import JobId
from ddit_batch.model_config import ModelConfig
from ddit_batch.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is needed to make the same video again, and to see what it cost."""

    job_id: JobId
    request: Request
    model: ModelConfig
    versions: Mapping[str, str]
    sha256: str
    """Of the mp4 file."""
    frames_sha256: str
    """Of the frames before encoding: (F, H, W, 3) uint8 RGB in C order."""
    size_bytes: int
    phases: Sequence[PhaseSpan]
    segments: Sequence[SegmentSpan]

    def to_bytes(self) -> bytes:
        """UTF-8 JSON."""
        seconds: dict[str, float] = {}
        for span in self.phases:
            seconds[span.phase] = round(seconds.get(span.phase, 0.0) + span.seconds, 4)
        content = {
            "custom_id": self.request.custom_id,
            "job_id": self.job_id,
            "seed": self.request.seed,
            "request": self.request.to_json(),
            "model": self.model.model_dump(mode="json"),
            "versions": dict(self.versions),
            "sha256": self.sha256,
            "frames_sha256": self.frames_sha256,
            "size_bytes": self.size_bytes,
            "phase_s": seconds,
            "attempts": [asdict(span) for span in self.phases],
            "segments": [asdict(span) for span in self.segments],
        }
        return json.dumps(content, indent=2, ensure_ascii=False).encode()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of *data* as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
