"""The versions that a video's bits depend on, for its manifest."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

import ddit_batch


@cache
def versions() -> dict[str, str]:
    """Version by library name, ours first."""
    libraries = ("torch", "diffusers", "transformers", "xfuser", "av")
    return {"ddit_batch": ddit_batch.__version__, **{name: version(name) for name in libraries}}
