"""Importing xfuser on a machine without an accelerator, which xfuser 0.7 does not foresee.

With an accelerator this imports xfuser as it is. Without one, two things stop it: triton, which
comes only with torch for GPUs, is imported for kernels that a CPU never runs; and looking for the
version of the accelerator raises. Both are there while xfuser is imported and gone afterwards, so
that nothing else in the process believes in them.

Costs, on two shared cores with diffusers in the process already: 0.6 s and 11 MB (2026).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch

_WAN = "xfuser.model_executor.models.transformers.transformer_wan"
_LOOK_FOR_TRITON = (
    # These remember whether there is triton: they are to see the truth.
    "peft",
    "diffusers.loaders.peft",
    "diffusers.pipelines.pipeline_utils",
    "torch.distributed.tensor.experimental._attention",
)
_importing = threading.Lock()


def import_wan() -> Any:
    """Xfuser's module of the Wan transformer."""
    with _importing:
        if _WAN not in sys.modules:
            for name in _LOOK_FOR_TRITON:
                importlib.import_module(name)
            with _triton(), _accelerator_version(), _quiet():
                importlib.import_module(_WAN)
        return sys.modules[_WAN]


class _Anything:
    """Stands for whatever a module body takes from triton; as a decorator it changes nothing."""

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: object, **_options: object) -> object:
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else self


def _triton() -> Any:
    """Something to import as triton, if there is none."""
    return nullcontext() if importlib.util.find_spec("triton") else _stand_in_for_triton()


@contextmanager
def _stand_in_for_triton() -> Iterator[None]:
    stand_ins: dict[str, ModuleType] = {}
    for name in ("triton", "triton.language"):
        stand_ins[name] = module = types.ModuleType(name)
        module.__getattr__ = _Anything().__getattr__  # type: ignore[method-assign]  # PEP 562
    stand_ins["triton"].__path__ = []  # it has submodules
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


@contextmanager
def _accelerator_version() -> Iterator[None]:
    """A version to read where torch was built for no accelerator; it is parsed and not used."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        yield
        return
    torch.version.cuda = "0.0"
    try:
        yield
    finally:
        torch.version.cuda = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Xfuser logs to stdout, from the level on that it finds here when it is imported."""
    before = os.environ.get("LOG_LEVEL")
    os.environ["LOG_LEVEL"] = "ERROR"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOG_LEVEL"]
        else:
            os.environ["LOG_LEVEL"] = before
