from __future__ import annotations

import torch

import ddit_batch
from ddit_batch.phases.versions import versions


def test_the_manifest_can_name_what_made_the_video() -> None:
    """Every library that the pixels depend on is there, with the version that runs."""
    found = versions()

    assert list(found) == ["ddit_batch", "torch", "diffusers", "transformers", "xfuser", "av"]
    assert found["ddit_batch"] == ddit_batch.__version__
    assert found["torch"] == torch.__version__
