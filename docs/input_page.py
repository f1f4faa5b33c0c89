"""The parts of ``input.md`` that the code can produce: the fields, and answers to wrong lines."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path

from click.testing import CliRunner

from ddit_batch.cli import main as ddit
from ddit_batch.cli.skipped import error_lines
from ddit_batch.formats import FORMATS, FormatName
from ddit_batch.line_aliases import ALIASES
from ddit_batch.line_rules import (
    MAX_CUSTOM_ID_CHARS,
    MAX_METADATA_PAIRS,
    CustomId,
    Metadata,
    OneOf,
    Real,
    Rule,
    Text,
    Whole,
    rules_for,
)
from ddit_batch.model_config import known_models
from ddit_batch.prompt_file import parse

MODEL = "wan2.1-t2v-1.3b"
"""The model whose limits and defaults the table shows."""
PAGE = Path(__file__).with_name("input.md")
_NO_MODEL_DEFAULT = {
    "custom_id": "`line-` and the line number",
    "model": "`--model`",
    "prompt": "none: every line has its own",
    "seed": "made from the line's content and number",
    "priority": "0",
    "metadata": "none",
}


def field_table() -> str:
    """Every field with its rule, its default and its other names."""
    model = known_models()[MODEL]
    defaults = {name: f"{value}" for name, value in model.defaults.model_dump().items()}
    rows = ["| field | may be | default | other names |", "|---|---|---|---|"]
    for field, rule in rules_for(model, model_names=()).items():
        others = ", ".join(f"`{name}`" for name, meant in sorted(ALIASES.items()) if meant == field)
        others = "in CSV `metadata.KEY`" if field == "metadata" else others
        default = _NO_MODEL_DEFAULT.get(field) or defaults[field] or "empty"
        rows.append(f"| `{field}` | {_in_words(rule)} | {default} | {others} |")
    return "\n".join(rows)


def _in_words(rule: Rule) -> str:
    match rule:
        case Whole(low=low, high=high, multiple=multiple, offset=offset):
            plus = f" plus {offset}" if offset else ""
            of = f", a multiple of {multiple}{plus}" if multiple > 1 else ""
            return f"whole number, {low} to {high}{of}"
        case Real(low=low, high=high):
            return f"number, {low:g} to {high:g}"
        case Text(max_chars=max_chars, empty_cure=cure):
            return f"text of {'1' if cure else '0'} to {max_chars} characters"
        case CustomId():
            return (
                f"name of 1 to {MAX_CUSTOM_ID_CHARS} characters, each once in a file; no `/`, "
                "no `\\`, no control character, no dot at its start"
            )
        case Metadata():
            return f"up to {MAX_METADATA_PAIRS} texts by name, handed back as they are"
        case OneOf():
            return "name of a model config"
    raise AssertionError(f"no words for {rule}")


def answers() -> str:
    """What ``ddit submit`` says to the wrong file that the page shows."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("bad.jsonl").write_text(_block("bad.jsonl"), "utf-8")
        said = CliRunner().invoke(ddit, ["submit", "bad.jsonl"]).stderr
    return f"```console\n$ ddit submit bad.jsonl\n{said}```"


def errors_file() -> str:
    """The errors file for the same lines, when they are left out."""
    parsed = parse(
        _block("bad.jsonl").encode(),
        file_name="bad.jsonl",
        models=known_models(),
        default_model="shapes",
        lines=FORMATS[FormatName.JSONL],
    )
    return f"```json\n{error_lines(parsed.problems)[0]}\n```"


def _block(name: str) -> str:
    """The file *name* as the page shows it below its name; its last line has no end."""
    block = rf"^`{re.escape(name)}`[^\n]*:\n\n```\w+\n(.*?)\n```"
    found = re.search(block, PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, f"{PAGE.name} does not show {name}"
    return found[1]


PARTS = {
    "request fields": field_table,
    "answers": answers,
    "errors file": errors_file,
}
