"""The command lines in README and docs: what stands in their console blocks after ``ddit``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples/README.md"]
FENCE = re.compile(r"```(?:console|bash|sh)\n(.*?)```", re.DOTALL)


def command_lines(text: str) -> Iterator[str]:
    """The lines of console blocks that begin with ddit, after a prompt, variables or a path."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "ddit":
                yield shlex.join(words[1:])


def all_lines() -> list[str]:
    """Every command line of the pages, once."""
    return sorted({line for page in PAGES for line in command_lines(page.read_text("utf-8"))})
