"""Options of the commands that read a file of prompts."""

from __future__ import annotations

import click

from ddit_batch.formats import FormatName

file_argument = click.argument("file", type=click.Path(allow_dash=True))

model_option = click.option(
    "--model",
    default="shapes",
    show_default=True,
    help="Model of lines that name none: a name, a config file, or a folder in diffusers' format.",
)


def _as_pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, _value in pairs:
        if not (name and equals):
            raise click.BadParameter(f"{name!r} is not of the form key=value")
    return {name: value for name, _equals, value in pairs}


set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_as_pairs,
    help="Default of a field for lines that do not give it; may be repeated.",
)

format_option = click.option(
    "--format",
    "format_name",
    type=click.Choice(FormatName, case_sensitive=False),
    help="Format of FILE; without it, its extension says, or else its first line.",
)

skip_invalid_option = click.option(
    "--skip-invalid",
    is_flag=True,
    help="Submit the good lines although there are bad ones, which go to errors.jsonl. "
    "The exit code is then 0: what you asked for was done.",
)
