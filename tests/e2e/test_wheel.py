from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

IMPORTED = "import ddit_batch, workers; print(ddit_batch.__file__, workers.__file__)"


def test_wheel_has_code_workers_and_data(wheel: Path) -> None:
    """What stands beside the package in the repository travels inside it, and no more."""
    names = set(zipfile.ZipFile(wheel).namelist())

    assert {
        "ddit_batch/py.typed",
        "ddit_batch/cli/__main__.py",
        "workers/app.py",
        "ddit_batch/migrations/env.py",
        "ddit_batch/migrations/versions/0001_batches_and_jobs.py",
        "ddit_batch/configs/models/tiny-wan.yaml",
        "ddit_batch/configs/models/shapes.yaml",
        "ddit_batch/configs/models/shapes/model_index.json",
        "ddit_batch/configs/models/shapes/transformer/diffusion_pytorch_model.safetensors",
    } <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops - {"ddit_batch", "workers"} == {top for top in tops if top.endswith(".dist-info")}


def test_installed_wheel_is_on_its_own(installed: Path, tmp_path: Path) -> None:
    """Outside the repository, package and workers come from the wheel."""
    imported = subprocess.run(
        [installed / "python", "-c", IMPORTED],
        check=True,
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
    ).stdout.split()

    assert len(imported) == 2
    assert all(Path(path).is_relative_to(installed.parent) for path in imported)
