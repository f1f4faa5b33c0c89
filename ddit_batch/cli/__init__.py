"""The command line: thin faces on public Python calls. Data on stdout, talk on stderr.

Exit codes: 0 done, 1 failed, 2 wrong usage (an option, or a line of the input file), 130 stopped by
Ctrl-C.
"""

from __future__ import annotations

import tempfile
import traceback

import click
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch import __version__
from ddit_batch.cli.cluster import down, up
from ddit_batch.cli.doctor import doctor
from ddit_batch.cli.results import results
from ddit_batch.cli.run import run
from ddit_batch.cli.services import db, flower, scheduler, worker
from ddit_batch.cli.sql import sql
from ddit_batch.cli.status import status
from ddit_batch.cli.submit import submit
from ddit_batch.cli.watch import watch
from ddit_batch.cli.wishes import cancel, retry
from ddit_batch.errors import DditError, RequestError


class _Failed(click.ClickException):
    exit_code = 1


class _WrongInput(click.ClickException):
    exit_code = 2


class _DditGroup(click.Group):
    """Turns errors into messages: no traceback reaches a user."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RequestError as exc:
            raise _WrongInput(str(exc)) from exc
        except DditError as exc:
            raise _Failed(str(exc)) from exc
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except SQLAlchemyError as exc:
            raise _Failed(f"the database: {_first_line(exc)} (`ddit doctor` looks closer)") from exc
        except Exception as exc:
            raise _Failed(_bug_report(exc)) from exc


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).splitlines()), type(exc).__name__)


def _bug_report(exc: Exception) -> str:
    """Put the traceback where a maintainer can read it, and say where."""
    with tempfile.NamedTemporaryFile("w", prefix="ddit-bug-", suffix=".log", delete=False) as log:
        log.writelines(traceback.format_exception(exc))
    return f"this is a bug in ddit: {_first_line(exc)}; please report it with {log.name}"


@click.group(cls=_DditGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ddit")
def main() -> None:
    """A file of prompts becomes videos.

    \b
    ddit run prompts.jsonl --out videos
    """


_USERS = (run, up, down, submit, status, watch, results, cancel, retry, sql, doctor)
_SERVICES = (scheduler, worker, flower, db)
for command in (*_USERS, *_SERVICES):
    main.add_command(command)
