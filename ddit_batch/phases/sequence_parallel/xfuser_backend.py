"""Sequence parallelism by xfuser's USP: Ulysses, and rings where they run.

xfuser keeps its groups in module-level names that its own initialisation fills once, for a world
that never changes. Here they are set before each call of the transformer; nowhere else.
"""

from __future__ import annotations

import importlib
from typing import Any

from ddit_batch.phases.sequence_parallel.mesh import LONE_MESH, Mesh
from ddit_batch.phases.sequence_parallel.torch_private import ensure_lone_world
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan


class XfuserSequenceParallel:
    """One transformer of xfuser's own class."""

    def __init__(self, transformer: Any) -> None:
        import_wan()
        self._state = _module("xfuser.core.distributed.parallel_state")
        self._process_groups = _module("xfuser.model_executor.layers.usp").PROCESS_GROUP
        self._state._SP = LONE_MESH
        ensure_lone_world()  # or xfuser would make a world as its environment variables say
        _ensure_runtime()
        self._attention: dict[str, int] = {}
        for module in transformer.modules():
            processor: Any = getattr(module, "processor", None)
            if getattr(processor, "is_cross_attention", True) is False:
                processor.attention_kwargs = self._attention

    def split(self, mesh: Mesh, *, tokens: int) -> None:
        """From the next call on split sequences of *tokens* over *mesh*.

        xfuser pads tokens that the ranks do not divide, at the end, and would let them be attended
        to: 0.6 % wrong at 18 tokens over 4 ranks. ``valid_kv_len`` cuts them off.
        """
        self._state._SP = mesh
        self._process_groups.ULYSSES_PG = mesh.ulysses.process_group
        self._process_groups.RING_PG = mesh.ring.process_group
        if tokens % mesh.size():
            self._attention["valid_kv_len"] = tokens
        else:
            self._attention.pop("valid_kv_len", None)


def _ensure_runtime() -> None:
    """Xfuser's runtime state, without its initialisation of a distributed world."""
    runtime = _module("xfuser.core.distributed.runtime_state")
    backends = _module("xfuser.core.distributed.attention_backend")
    if runtime._RUNTIME is not None:
        return

    external: Any = runtime.ExternalRuntimeState

    class EngineRuntime(external):  # type: ignore[misc]  # xfuser has no types
        """The Wan wrapper of 0.7 counts steps, which ``ExternalRuntimeState`` cannot."""

        def increment_step_counter(self) -> None:
            """Nothing of ours depends on the step."""

    runtime._RUNTIME = EngineRuntime()
    runtime._RUNTIME.set_attention_backend(backends.AttentionBackendType.SDPA)


def _module(name: str) -> Any:
    return importlib.import_module(name)
