"""The GPUs of this machine, found without torch."""

from __future__ import annotations

import os
import shutil
import subprocess

from ddit_batch.config import load_settings
from ddit_batch.errors import ConfigError

_PATIENCE_S = 20.0
"""A driver that has been idle takes seconds to answer."""


def visible_gpus() -> int:
    """How many NVIDIA GPUs processes started from here may use; 0 without a driver that answers."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([word for word in chosen.split(",") if word.strip() not in {"", "-1"}])
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def devices_for(workers: int) -> tuple[str, ...]:
    """The devices for so many DiT workers, one GPU each; () leaves the choice to the workers.

    That is so for one worker, without GPUs, and where ``DDIT_DEVICE`` has chosen already.

    Raises:
        ConfigError: There are GPUs, but too few.
    """
    if workers == 1 or load_settings().device:
        return ()
    gpus = visible_gpus()
    if 0 < gpus < workers:
        raise ConfigError(
            f"{workers} DiT workers need {workers} GPUs, and this machine has {gpus}: ask for "
            f"{gpus}, or set DDIT_DEVICE=cpu for workers on the CPU"
        )
    return tuple(f"cuda:{i}" for i in range(gpus))
