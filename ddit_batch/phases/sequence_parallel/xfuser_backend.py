"""Sequence parallelism by xfuser's USP: Ulysses, and rings where they run.

xfuser keeps its groups in module-level names that its own initialisation fills once, for a world
that never changes. Here they are set before each call of the transformer; nowhere else.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ddit_batch.phases.sequence_parallel.mesh import LONE_MESH, Mesh
from ddit_batch.phases.sequence_parallel.torch_private import cpu_flash_attention, ensure_lone_world
from ddit_batch.phases.sequence_parallel.xfuser_import import import_wan


class XfuserSequenceParallel:
    """One transformer of xfuser's own class."""

    def __init__(self, transformer: Any) -> None:
        import_wan()
        self._state = _module("xfuser.core.distributed.parallel_state")
        _module("xfuser.model_executor.layers.usp").PROCESS_GROUP = _ProcessGroups(self._state)
        self._state._SP = LONE_MESH
        self._runtime = _runtime_state(transformer.device)
        self._kinds = _module("xfuser.core.distributed.attention_backend").AttentionBackendType
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
        # Only flash attention gives the sums with which the parts of a ring are merged.
        ringed = mesh.ring.size > 1
        self._runtime.attention_backend = self._kinds.SDPA_FLASH if ringed else self._kinds.SDPA
        if tokens % mesh.size():
            self._attention["valid_kv_len"] = tokens
        else:
            self._attention.pop("valid_kv_len", None)


class _ProcessGroups:
    """What xfuser's attention takes from yunchang's globals: here, of the mesh that was set.

    Without an accelerator xfuser has none at all. This one keeps no closed group alive.
    """

    def __init__(self, parallel_state: Any) -> None:
        self._parallel_state = parallel_state

    @property
    def ULYSSES_PG(self) -> dist.ProcessGroup | None:  # noqa: N802
        return self._mesh.ulysses.process_group

    @property
    def RING_PG(self) -> dist.ProcessGroup | None:  # noqa: N802
        return self._mesh.ring.process_group

    @property
    def _mesh(self) -> Mesh:
        mesh: Mesh = self._parallel_state._SP
        return mesh


def _runtime_state(device: torch.device) -> Any:
    """Xfuser's runtime state, without its initialisation of a distributed world."""
    runtime = _module("xfuser.core.distributed.runtime_state")
    if runtime._RUNTIME is not None:
        return runtime._RUNTIME
    external: Any = runtime.ExternalRuntimeState

    class EngineRuntime(external):  # type: ignore[misc]  # xfuser has no types
        """The Wan wrapper of 0.7 counts steps, which ``ExternalRuntimeState`` cannot."""

        def increment_step_counter(self) -> None:
            """Nothing of ours depends on the step."""

    ensure_lone_world()  # or xfuser would make a world as its environment variables say
    attention = _module("xfuser.core.distributed.attention_backend")
    runtime._RUNTIME = EngineRuntime()
    runtime._RUNTIME.set_cross_attention_backend(attention.AttentionBackendType.SDPA)
    if device.type == "cpu":
        attention.ATTENTION_FUNCTION_REGISTRY[attention.AttentionBackendType.SDPA_FLASH] = (
            _cpu_flash_attention
        )
    return runtime._RUNTIME


def _cpu_flash_attention(  # noqa: PLR0917 -- xfuser's signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float,
    is_causal: bool,  # noqa: FBT001
    attention_kwargs: object = None,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    """What xfuser has for GPUs only."""
    return cpu_flash_attention(query, key, value, dropout_p=dropout_p, is_causal=is_causal)


def _module(name: str) -> Any:
    return importlib.import_module(name)
