"""The lines of ``results.jsonl`` and ``errors.jsonl``, in OpenAI's format of batch outputs.

One JSON object a finished job. Readers find theirs by ``custom_id``; the order is not promised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ddit_batch.artifact_keys import file_name_for
from ddit_batch.causes import advice_for
from ddit_batch.db.status import FinishedJob
from ddit_batch.job import JobState

RESULTS_FILE = "results.jsonl"
ERRORS_FILE = "errors.jsonl"


def result_line(job: FinishedJob) -> str:
    """One line: ``response`` for a success, ``error`` for everything else."""
    succeeded = job.state is JobState.SUCCEEDED
    line: dict[str, object] = {
        "id": job.job_id,
        "custom_id": job.custom_id,
        "response": _response(job) if succeeded else None,
        "error": None if succeeded else _error(job),
    }
    return json.dumps(line, ensure_ascii=False)


def write_results(
    jobs: Iterable[FinishedJob], folder: Path, *, skipped: Iterable[str] = ()
) -> None:
    """Write both files into *folder*, each in one move; an empty errors file is not left.

    *skipped* are lines for the errors file, of requests that never became jobs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    good: list[str] = []
    bad: list[str] = [*skipped]
    for job in jobs:
        (good if job.state is JobState.SUCCEEDED else bad).append(result_line(job))
    _write(folder / RESULTS_FILE, good)
    _write(folder / ERRORS_FILE, bad)


def _response(job: FinishedJob) -> dict[str, object]:
    return {
        "status_code": 200,
        "request_id": job.job_id,
        "body": {
            "id": job.job_id,
            "object": "video",
            "status": "completed",
            "model": job.model,
            "size": f"{job.width}x{job.height}",
            "num_frames": job.num_frames,
            "seed": job.seed,
            "file": file_name_for(job.custom_id, ".mp4"),
            "artifact_key": job.artifact_key,
            "manifest_key": job.manifest_key,
        },
    }


def _error(job: FinishedJob) -> dict[str, object]:
    if job.state is JobState.CANCELLED:
        return {"code": "cancelled", "message": "cancelled on request"}
    return {
        "code": job.failure_code,
        "message": job.failure_message,
        "advice": advice_for(job.failure_code),
    }


def _write(file: Path, lines: list[str]) -> None:
    if not lines:
        file.unlink(missing_ok=True)
        return
    new = file.with_name(f"{file.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.replace(file)
