"""From a file name and options to validated requests, and on into the database."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from ddit_batch import prompt_file
from ddit_batch.db.status import models_served
from ddit_batch.db.submission import NO_WISHES, Submission, Wishes
from ddit_batch.db.submission import submit as submit_requests
from ddit_batch.errors import RequestError
from ddit_batch.formats import FORMATS, FormatName, format_of
from ddit_batch.line_rules import shown
from ddit_batch.model_config import find_model, known_models
from ddit_batch.prompt_file import STDIN, ParsedFile, Problem
from ddit_batch.request import Request

SHOWN_PROBLEMS = 50
START_ONE = "start a worker that does, or give --allow-unserved to let its lines wait"
START_OVER = "`ddit down` stops this cluster; then `ddit run` starts one that does"
START_OTHERS = "start a worker that does"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What is to be submitted of a file that was read."""

    name: str
    """The file's name, fit to be stored and shown."""
    requests: tuple[Request, ...]
    content_hash: str
    models: tuple[str, ...]
    """What a worker must be told to serve: a name, or the place that the user gave."""
    skipped: tuple[Problem, ...] = ()
    """Why other lines of the file are left out."""

    @property
    def skipped_lines(self) -> int:
        """How many lines are left out."""
        return len({problem.line for problem in self.skipped})


def load_prompts(
    file: str,
    *,
    model: str,
    overrides: Mapping[str, str],
    models_folder: Path | None,
    format_name: FormatName | None = None,
    skip_invalid: bool = False,
) -> Prompts:
    """Read and check *file* (``-`` is standard input); its format is found out if not given.

    Raises:
        RequestError: There is no good line, or there is a bad one and not *skip_invalid*; the
            message has the problems, a line each.
    """
    models = known_models(models_folder)
    default = find_model(model, models)
    data = prompt_file.read(file)
    parsed = prompt_file.parse(
        data,
        file_name=_storable(file),
        models={**models, default.name: default},
        default_model=default.name,
        overrides=overrides,
        lines=FORMATS[format_name] if format_name else format_of(file, data),
    )
    if parsed.problems and not (skip_invalid and parsed.requests):
        raise RequestError(_refusal(parsed, skip_invalid=skip_invalid))
    return Prompts(
        name="stdin" if file == STDIN else _storable(file),
        requests=parsed.requests,
        content_hash=parsed.content_hash,
        models=tuple(
            model if name == default.name else name
            for name in sorted({request.model for request in parsed.requests})
        ),
        skipped=parsed.problems,
    )


def submit_prompts(
    engine: Engine,
    prompts: Prompts,
    *,
    out: Path | None,
    new: bool,
    wishes: Wishes = NO_WISHES,
) -> Submission:
    """Store *prompts* as a batch, or find the batch that they are already."""
    out_url = str(out.resolve()) if out else None
    if out_url is not None and out_url != _storable(out_url):
        raise RequestError(f"--out {_storable(out_url)}: is not UTF-8: choose another name")
    return submit_requests(
        engine,
        prompts.requests,
        content_hash=prompts.content_hash,
        name=prompts.name,
        out_url=out_url,
        new=new,
        wishes=wishes,
    )


def check_served(engine: Engine, prompts: Prompts, *, cure: str) -> bool:
    """Check that the workers serve what *prompts* ask for, if there are workers at all.

    Returns:
        False if there are none, so that nothing could be checked.

    Raises:
        RequestError: There is a model that none of them serves; *cure* says what to do.
    """
    served = models_served(engine)
    if not served:
        return False
    lines = Counter(request.model for request in prompts.requests)
    problems = [
        Problem(
            file=prompts.name,
            line=next(r.line for r in prompts.requests if r.model == model),
            field="model",
            value=shown(model),
            rule=f"is served by no worker (served: {', '.join(sorted(served))}), "
            f"and {count} of {lines.total()} lines ask for it",
            cure=cure,
            code="model_not_found",
        )
        for model, count in sorted(lines.items())
        if model not in served
    ]
    if problems:
        raise RequestError("nothing was submitted:\n" + listed(tuple(problems)))
    return True


def listed(problems: tuple[Problem, ...]) -> str:
    """The first of *problems*, a line each, and how many more there are."""
    lines = [str(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if more := len(problems) - len(lines):
        lines.append(f"... and {more} more")
    return "\n".join(lines)


def _refusal(parsed: ParsedFile, *, skip_invalid: bool) -> str:
    good = len(parsed.requests)
    hint = f"\n(good lines: {good}; --skip-invalid submits those alone)" if good else ""
    even_so = ", not even with --skip-invalid" if skip_invalid else ""
    return f"nothing was submitted{even_so}:\n{listed(parsed.problems)}{hint}"


def _storable(path: str) -> str:
    """*path* as text that a database takes, whatever bytes the file system has in it."""
    return os.fsencode(path).decode(errors="replace")
