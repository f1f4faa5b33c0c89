"""Sequence parallelism by diffusers' own context parallelism (Ulysses).

diffusers sets it up once, for a device mesh over the whole world. Here its configuration is made
without one, and the group in it exchanged: the hooks that split and join the sequence and the
attention processors read it at every call.
"""

from __future__ import annotations

from typing import Any

from diffusers import ContextParallelConfig
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from diffusers.models._modeling_parallel import ParallelConfig
from diffusers.models.attention import AttentionModuleMixin

from ddit_batch.phases.sequence_parallel.mesh import LONE_MESH, Mesh

_ANY_DEGREE = 2
"""The configuration refuses to be made without parallelism; ``split`` sets the real degree."""


class DiffusersSequenceParallel:
    """One transformer that has a ``_cp_plan``."""

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self._context = ContextParallelConfig(ulysses_degree=_ANY_DEGREE)
        self._parallel = ParallelConfig(context_parallel_config=self._context)
        self._processors = [
            module.processor
            for module in transformer.modules()
            if isinstance(module, AttentionModuleMixin)
        ]
        # Its entry for the model itself splits timesteps of single tokens, which Wan 2.2 has.
        self._plan = {name: plan for name, plan in transformer._cp_plan.items() if name}
        self._mesh = LONE_MESH

    def split(self, mesh: Mesh, *, tokens: int) -> None:  # noqa: ARG002 -- it cannot pad
        """From the next call on split the sequence over *mesh*, whose size divides its tokens."""
        if mesh is self._mesh:
            return
        was_split, is_split = self._mesh.size() > 1, mesh.size() > 1
        self._mesh = mesh
        if is_split:
            self._put(mesh)
        if is_split and not was_split:
            apply_context_parallel(self._transformer, self._context, self._plan)
        if was_split and not is_split:
            remove_context_parallel(self._transformer, self._plan)
        for processor in self._processors:
            processor._parallel_config = self._parallel if is_split else None

    def _put(self, mesh: Mesh) -> None:
        """What ``ContextParallelConfig.setup`` would take from a device mesh."""
        context = self._context
        context.ulysses_degree = mesh.size()
        context._mesh = context._flattened_mesh = context._ulysses_mesh = mesh
        context._ulysses_local_rank = mesh.get_local_rank()
