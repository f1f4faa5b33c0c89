"""The lines that are left out: told, and kept in the error format of OpenAI's batches."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import click

from ddit_batch.cli.prompts import Prompts, listed
from ddit_batch.errors import RequestError
from ddit_batch.prompt_file import STDIN, Problem
from ddit_batch.results import ERRORS_FILE


def errors_file(given: Path | None, out: Path | None) -> Path:
    """Where skipped lines are kept: *given*, or in the folder *out*, or in this folder."""
    return given or (out or Path()) / ERRORS_FILE


def error_lines(problems: Sequence[Problem]) -> list[str]:
    """One JSON object for each line of the file that has problems."""
    by_line = itertools.groupby(
        sorted(problems, key=lambda problem: problem.line), lambda problem: problem.line
    )
    return [_error_line(tuple(group)) for _, group in by_line]


def keep_skipped(prompts: Prompts, *, file: str, errors: Path) -> None:
    """Write the lines of *file* that are left out, if any, to the file *errors*, and say so.

    Raises:
        RequestError: *errors* cannot be written, or is *file* itself.
    """
    if not prompts.skipped:
        return
    lines = error_lines(prompts.skipped)
    new = errors.with_name(f"{errors.name}.new")
    try:
        if file != STDIN and errors.exists() and errors.samefile(file):
            raise RequestError(f"{errors}: is the file of prompts itself: choose another place")
        errors.parent.mkdir(parents=True, exist_ok=True)
        new.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        new.replace(errors)
    except OSError as exc:
        reason = exc.strerror or "no such name"
        raise RequestError(f"{errors}: cannot be written: {reason}: check the path") from exc
    click.echo(listed(prompts.skipped), err=True)
    click.echo(f"lines left out: {len(lines)}; see {errors}", err=True)


def _error_line(problems: tuple[Problem, ...]) -> str:
    """All that is wrong with one line; code and param are those of the first problem."""
    first = problems[0]
    line = {
        "id": f"line-{first.line:06d}",
        "custom_id": next((p.custom_id for p in problems if p.custom_id is not None), None),
        "response": None,
        "error": {
            "code": first.code,
            "message": "; ".join(map(str, problems)),
            "line": first.line,
            "param": first.field or None,
        },
    }
    return json.dumps(line, ensure_ascii=False)
