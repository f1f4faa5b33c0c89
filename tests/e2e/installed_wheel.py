"""The wheel of this tree, and an environment in which it is installed as users install it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def build_wheel(folder: Path) -> Path:
    """Build the wheel into *folder*; returns its path."""
    isolation = ("--no-build-isolation",) if find_spec("hatchling") else ()
    _pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(REPOSITORY))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment in *folder* with *wheel* and this one's libraries; returns its ``bin``.

    The path file names the libraries' folder, so that the path files in that folder, such as an
    editable installation's, are not read.
    """
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", str(wheel))
    return folder / "bin"


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
