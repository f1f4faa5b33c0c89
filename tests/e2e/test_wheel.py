from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from cluster_tools import Sums
from e2e_processes import clean_env, processes_of
from e2e_prompts import write_prompts

REPOSITORY = Path(__file__).parents[2]
IMPORTED = "import ddit_batch, workers; print(ddit_batch.__file__, workers.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("dist")
    isolation = ("--no-build-isolation",) if find_spec("hatchling") else ()
    words = ("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(REPOSITORY))
    _pip(*words)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that has the wheel, and the libraries of this one.

    The path file names a folder, so that the path files in it, such as that of an editable
    installation, are not read.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _pip("--python", str(folder / "bin" / "python"), "install", "--no-deps", str(wheel))
    return folder / "bin"


def test_wheel_has_code_workers_and_data(wheel: Path) -> None:
    """What stands beside the package in the repository travels inside it."""
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {
        "ddit_batch/py.typed",
        "ddit_batch/cli/__main__.py",
        "workers/app.py",
        "ddit_batch/migrations/env.py",
        "ddit_batch/migrations/versions/0001_batches_and_jobs.py",
        "ddit_batch/configs/models/tiny-wan.yaml",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "shared/", "examples/"))]


def test_installed_wheel_makes_videos(
    installed: Path, undisturbed: dict[str, Sums], tmp_path: Path
) -> None:
    """In an empty folder, without the repository: `ddit run` with every default."""
    home = tmp_path / ".ddit"
    prompts = write_prompts(tmp_path / "prompts.jsonl", "tram")
    env = clean_env(home)
    for name in ("DDIT_HOME", "PYTHONPATH"):
        env.pop(name, None)

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120.0
        )

    imported = run(installed / "python", "-c", IMPORTED).stdout.split()
    done = run(installed / "ddit", "run", prompts.name)

    assert [Path(path).is_relative_to(installed.parent) for path in imported] == [True, True]
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "videos" / "tram.json").read_text())
    assert Sums.of(manifest) == undisturbed["tram"]
    assert processes_of(home) == []


def _pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
