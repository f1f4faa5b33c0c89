"""The group of commands: loads only the one that is called, and turns errors into messages."""

from __future__ import annotations

import importlib
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from ddit_batch.errors import DditError, RequestError


class Failed(click.ClickException):
    """What was asked for could not be done."""

    exit_code = 1


class WrongInput(click.ClickException):
    """The user's file or options are wrong; nothing was done."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is, and what is said of it in a list of commands."""

    path: str
    """``module:attribute``."""
    summary: str
    """The first sentence of the command's help, once more: a list need not load the commands. A
    test holds the two together."""


class CommandGroup(click.Group):
    """Commands by name, each in a module that is imported when it is needed.

    A command that looks at a database should not wait for the imports of one that starts a cluster.
    """

    def __init__(self, *args: Any, places: Mapping[str, Place], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of *places*."""
        del ctx
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None if there is none."""
        del ctx
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.path.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click lists the commands, from the summaries alone."""
        del ctx
        limit = formatter.width - 6 - max(map(len, self._places))
        summaries = [click.Command(name, help=p.summary) for name, p in self._places.items()]
        with formatter.section("Commands"):
            formatter.write_dl([(str(s.name), s.get_short_help_str(limit)) for s in summaries])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; no traceback reaches a user."""
        try:
            return super().invoke(ctx)
        except RequestError as exc:
            raise WrongInput(str(exc)) from exc
        except DditError as exc:
            raise Failed(str(exc)) from exc
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except UnicodeEncodeError as exc:
            if exc.reason != _NO_UTF_8:
                raise Failed(_explained(exc)) from exc
            raise WrongInput(
                "a word of the command holds bytes that are no UTF-8, and so names nothing here: "
                "type it anew, or set the terminal to UTF-8"
            ) from exc
        except OSError as exc:
            if exc.filename is None:
                raise Failed(_explained(exc)) from exc
            raise Failed(f"{_shortened(str(exc.filename))}: {exc.strerror}") from exc
        except Exception as exc:
            raise Failed(_explained(exc)) from exc


_NO_UTF_8 = "surrogates not allowed"
"""Python's word when it meets what stands for a byte of the command line that is no UTF-8."""
_LONGEST_NAME = 200


def _shortened(name: str) -> str:
    printable = name.encode(errors="backslashreplace").decode()
    return printable if len(printable) <= _LONGEST_NAME else f"{printable[:_LONGEST_NAME]}..."


def _explained(exc: Exception) -> str:
    """What to tell of an error that is none of ours: the database's word, or that it is a bug."""
    import psycopg  # noqa: PLC0415 -- slow, and only needed here
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 -- the same

    first_line = next(iter(str(exc).splitlines()), type(exc).__name__)
    if isinstance(exc, psycopg.Error):
        kind = f"{type(exc).__module__}.{type(exc).__name__}"
        first_line = f"({kind}) {first_line}"  # as SQLAlchemy says it
    if isinstance(exc, psycopg.Error | SQLAlchemyError):
        return f"the database: {first_line} (`ddit doctor` looks closer)"
    with tempfile.NamedTemporaryFile("w", prefix="ddit-bug-", suffix=".log", delete=False) as log:
        log.writelines(traceback.format_exception(exc))
    return f"this is a bug in ddit: {first_line}; please report it with {log.name}"
