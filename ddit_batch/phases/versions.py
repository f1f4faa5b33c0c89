"""The versions that a video's bits depend on, for its manifest."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

import torch

import ddit_batch


@cache
def versions() -> dict[str, str]:
    """Version by library name, ours first."""
    return {
        "ddit_batch": ddit_batch.__version__,
        # It knows for which devices it was built; what its package is called need not say so.
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("diffusers", "transformers", "xfuser", "av")},
    }
