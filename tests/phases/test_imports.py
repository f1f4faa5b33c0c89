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


def _python(code: str) -> str:
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return found.stdout


def test_who_does_not_denoise_never_imports_xfuser() -> None:
    """The families' modules, their encoders and decoders do without it."""
    code = (
        "import sys; from ddit_batch.phases.models import registry; "
        "print('xfuser' in sys.modules, 'diffusers' in sys.modules)"
    )

    assert _python(code).split() == ["False", "True"]


def test_importing_xfuser_leaves_no_trace_of_what_it_needed() -> None:
    """No triton that is none, no CUDA that is none, no environment variable, nothing on stdout."""
    code = """
import importlib.util, os, sys, torch
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan
os.environ.pop("LOG_LEVEL", None)
before = torch.version.cuda, importlib.util.find_spec("triton"), dict(os.environ)
assert import_wan() is import_wan()
assert (torch.version.cuda, importlib.util.find_spec("triton"), dict(os.environ)) == before
from torch.utils._triton import has_triton_package
assert has_triton_package() is (before[1] is not None)
import logging
logging.getLogger("xfuser.any").warning("not on stdout")
"""

    assert not _python(code)
