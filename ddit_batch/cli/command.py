"""A command whose help begins with an example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class ExampleCommand(click.Command):
    """A click command with an example, shown before the description."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, then the docstring."""
        formatter.write_paragraph()
        formatter.write(f"  Example: {self.example}\n")  # one line, to be copied
        super().format_help_text(ctx, formatter)


def command(example: str) -> Callable[[Callable[..., None]], ExampleCommand]:
    """Like ``click.command``, with the *example* that the help begins with."""
    return click.command(cls=ExampleCommand, example=example)
