from __future__ import annotations

import subprocess
import sys

WITHOUT_MODELS = ("checkpoint", "device", "dit", "encode", "handoff", "mp4", "vae", "versions")


def test_the_phases_import_without_any_model() -> None:
    """Each module stands on its own: only who loads a model pays for diffusers' import."""
    imports = "; ".join(f"import ddit_batch.phases.{name}" for name in WITHOUT_MODELS)
    code = f"import sys; {imports}; print('diffusers' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"
