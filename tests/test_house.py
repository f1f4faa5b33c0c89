from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
RULES = {
    "import rules": ("lint-imports",),
    "lint": ("ruff", "check"),
    "format": ("ruff", "format", "--check"),
    "types": ("mypy",),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule: str) -> None:
    """The tools that hold the rules have nothing to say."""
    tool, *words = RULES[rule]

    done = subprocess.run(
        [Path(sys.executable).with_name(tool), *words],
        check=False,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
