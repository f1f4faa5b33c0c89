"""A disk that is really full: a small file system in memory, for as long as a test needs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may mount a file system that is small enough to be filled"
)


@contextmanager
def small_disk(folder: Path, *, size_kib: int) -> Iterator[Path]:
    """A disk of *size_kib*, mounted at *folder*, whose own files are not seen meanwhile."""
    options = f"size={size_kib}k,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Write into *folder* until nothing more fits; the file, to be deleted again."""
    filler = folder / "filler~"
    with filler.open("wb", buffering=0) as file:
        for chunk in (b"x" * 4096, b"x"):
            try:
                while True:
                    file.write(chunk)
            except OSError:
                pass
    return filler
