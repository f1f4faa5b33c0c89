"""From a file name and options to validated requests, and on into the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from ddit_batch import prompt_file
from ddit_batch.db.submission import Submission
from ddit_batch.db.submission import submit as submit_requests
from ddit_batch.errors import RequestError
from ddit_batch.model_config import find_model, known_models
from ddit_batch.request import Request

SHOWN_PROBLEMS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """A file that was read, all of its lines good."""

    name: str
    requests: tuple[Request, ...]
    content_hash: str
    models: tuple[str, ...]
    """What a worker must be told to serve: a name, or the place that the user gave."""


def load_prompts(
    file: str, *, model: str, overrides: Mapping[str, str], models_folder: Path | None
) -> Prompts:
    """Read and check *file* (``-`` is standard input).

    Raises:
        RequestError: At least one line is wrong; the message has all problems, a line each.
    """
    models = known_models(models_folder)
    default = find_model(model, models)
    parsed = prompt_file.parse(
        prompt_file.read(file),
        file_name=file,
        models={**models, default.name: default},
        default_model=default.name,
        overrides=overrides,
    )
    if parsed.problems:
        shown = [str(problem) for problem in parsed.problems[:SHOWN_PROBLEMS]]
        more = len(parsed.problems) - len(shown)
        if more:
            shown.append(f"... and {more} more")
        raise RequestError("nothing was submitted:\n" + "\n".join(shown))
    if not parsed.requests:
        raise RequestError(f"{file}: no lines: write one JSON object with a prompt on each line")
    return Prompts(
        name=file,
        requests=parsed.requests,
        content_hash=parsed.content_hash,
        models=tuple(
            model if name == default.name else name
            for name in sorted({request.model for request in parsed.requests})
        ),
    )


def submit_prompts(engine: Engine, prompts: Prompts, *, out: Path | None, new: bool) -> Submission:
    """Store *prompts* as a batch, or find the batch that they are already."""
    return submit_requests(
        engine,
        prompts.requests,
        content_hash=prompts.content_hash,
        name=prompts.name,
        out_url=str(out.resolve()) if out else None,
        new=new,
    )
