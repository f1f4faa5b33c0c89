"""The worlds of the scheduler's tests serve the policies' tests too."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "scheduler"))
