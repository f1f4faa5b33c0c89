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


def test_xfuser_is_imported_by_who_denoises_only_and_leaves_no_trace() -> None:
    """Then there is no triton that is none, no CUDA that is none, and nothing on stdout."""
    code = """
import importlib.util, logging, os, sys, torch
from ddit_batch.phases.models import registry
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan
assert "diffusers" in sys.modules and "xfuser" not in sys.modules
os.environ.pop("LOG_LEVEL", None)
before = torch.version.cuda, importlib.util.find_spec("triton"), dict(os.environ)
assert import_wan() is import_wan()
assert (torch.version.cuda, importlib.util.find_spec("triton"), dict(os.environ)) == before
from torch.utils._triton import has_triton_package
assert has_triton_package() is (before[1] is not None)
logging.getLogger("xfuser.any").warning("not on stdout")
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
