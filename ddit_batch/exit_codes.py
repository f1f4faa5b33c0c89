"""Exit codes of our processes that mean something to whoever started them.

Those of commands are in ``cli/__init__.py``.
"""

from __future__ import annotations

DRAINED = 20
"""A worker has left because `ddit drain` asked for it: it is not to be started again."""
