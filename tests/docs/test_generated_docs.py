"""The parts of the docs that the code can produce are what it produces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_parts_of_the_docs_are_up_to_date() -> None:
    """``python docs/generate.py`` would change nothing."""
    check = [sys.executable, "docs/generate.py", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
