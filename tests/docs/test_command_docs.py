"""Every command has a help with an example, and every command line in the docs is a real one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from doc_lines import ROOT, all_lines

from ddit_batch.cli import main
from ddit_batch.cli.command import ExampleCommand


def all_commands(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def parse(line: str) -> None:
    """Have click read the words, without running anything."""
    command: click.Command = main
    words = shlex.split(line)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r} in: ddit {line}"
        command, words = found, words[1:]
    command.make_context("ddit", words)


COMMANDS = dict(all_commands(main))
LINES = all_lines()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_text_and_an_example_of_itself(name: str) -> None:
    """The help says what the command does, after an example that click accepts."""
    command = COMMANDS[name]

    assert command.help
    assert isinstance(command, ExampleCommand)
    assert f"ddit {name}" in command.example
    parse(command.example[command.example.index("ddit ") + len("ddit ") :])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_docs(name: str) -> None:
    """``docs/cli.md`` has a section for it."""
    assert f"\n## ddit {name}\n" in (ROOT / "docs" / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_in_the_docs_is_understood(line: str) -> None:
    """Commands, options and values of the docs exist."""
    parse(line)


def test_the_docs_have_command_lines_at_all() -> None:
    """Else the test above would pass on nothing."""
    assert any(line.startswith("run ") for line in LINES)
