"""A pipeline that loads, encodes and denoises, and whose videos cannot be decoded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def break_vae(good: Path, broken: Path) -> Path:
    """Copy *good* to *broken*, with one mean too few for the channels of the latents."""
    shutil.copytree(good, broken)
    path = broken / "vae" / "config.json"
    config = json.loads(path.read_text())
    config["latents_mean"] = config["latents_mean"][:-1]
    path.write_text(json.dumps(config))
    return broken
