"""Every part of torch used for SP groups that torch does not promise to keep: nowhere else.

torch's public way to a process group (``init_process_group``, ``new_group``) gives groups inside
one global world, whose members are fixed at its start: a dead process cannot come back into it, and
``new_group`` names groups by their history, so that processes with different histories wait for
different names. A process group that is built by hand needs no world; but torch's own functions and
the libraries find it only if it stands in the tables that ``new_group`` fills.
``tests/phases/test_torch_private.py`` says what of this must stay true.
"""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import (
    ErrorType,
    HashStore,
    PrefixStore,
    Store,
    _register_process_group,
    _unregister_process_group,
)
from torch.distributed import distributed_c10d
from torch.distributed.distributed_c10d import GroupName

from ddit_batch.errors import ConfigError

__all__ = [
    "Store",
    "abort",
    "cpu_flash_attention",
    "drop_process_group",
    "ensure_lone_world",
    "has_failed",
    "make_process_group",
    "tables",
]

_CPU = torch.device("cpu")
_lone_world_lock = threading.Lock()


def ensure_lone_world() -> None:
    """Give this process a default process group of its own, of size one, if it has none.

    torch's functions and the libraries ask for it; nothing is ever sent through it.

    Raises:
        ConfigError: The process has a default group already, with others in it.
    """
    with _lone_world_lock:
        if not dist.is_initialized():
            # After an error NCCL's communicator is aborted; by default (3) the process would be.
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
            dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    if (size := dist.get_world_size()) != 1:
        raise ConfigError(
            f"this process belongs to a torch.distributed world of {size}: SP groups need a worker "
            "that nobody has put into one; start it without torchrun"
        )


def make_process_group(
    store: Store,
    *,
    name: str,
    rank: int,
    size: int,
    device: torch.device,
    form_timeout_s: float,
    timeout_s: float,
) -> dist.ProcessGroup:
    """A process group of *size*, independent of any world; blocks until all of them have come.

    Tensors on the CPU go through gloo; on cuda there is NCCL beside it for those on *device*.
    *name* is unique in this process, and the same in all members. *timeout_s* limits each
    collective.

    Raises:
        RuntimeError: Not all came within *form_timeout_s*, or one of them is gone.
    """
    ensure_lone_world()
    timeout = timedelta(seconds=form_timeout_s)
    prefixed = PrefixStore(name, store)
    group = dist.ProcessGroup(prefixed, rank, size)
    gloo = dist.ProcessGroupGloo(prefixed, rank, size, timeout)
    gloo._set_sequence_number_for_group()
    group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
    group._register_backend(_CPU, dist.ProcessGroup.BackendType.GLOO, gloo)
    if device.type == "cuda":
        _add_nccl(group, PrefixStore("nccl", prefixed), device, timeout)
    group.set_timeout(timedelta(seconds=timeout_s))
    _enter_tables(group, name, prefixed)
    return group


def drop_process_group(group: dist.ProcessGroup) -> None:
    """Forget *group*; its connections close with its last reference.

    NCCL is aborted, which any member may do alone, where an orderly end would wait for all of them.
    """
    abort(group)
    _leave_tables(group)


def abort(group: dist.ProcessGroup) -> None:
    """End what *group* still runs on a GPU, from any thread of this process.

    An aborted collective returns, without raising and with part of its data. One of gloo cannot be
    aborted: only its time limit and the death of the peer end it.
    """
    for nccl in _nccl_of(group):
        nccl.abort()


def has_failed(group: dist.ProcessGroup) -> bool:
    """Whether a collective of *group* on a GPU did not end well. Ask when the device is idle."""
    return any(nccl.get_error() is not ErrorType.SUCCESS for nccl in _nccl_of(group))


def cpu_flash_attention(
    query: Tensor, key: Tensor, value: Tensor, *, dropout_p: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention on the CPU, (B, heads, tokens, dim), with the sums that a ring needs to merge."""
    output, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p=dropout_p, is_causal=is_causal
    )
    return output, log_sums


def _add_nccl(
    group: dist.ProcessGroup, store: Store, device: torch.device, timeout: timedelta
) -> None:
    """NCCL for tensors on *device*. Written by torch's documentation; not run on a GPU yet.

    Blocking NCCL calls could not be aborted, and a lazy connection would be made inside a step. The
    thread that forms is not the one that computes, and each has a current device of its own.
    """
    from torch._C._distributed_c10d import ProcessGroupNCCL  # noqa: PLC0415 -- torch for CPUs has none

    options = ProcessGroupNCCL.Options()
    options._timeout = timeout
    options.config.blocking = 0
    nccl = ProcessGroupNCCL(store, group.rank(), group.size(), options)
    nccl._set_sequence_number_for_group()
    torch.cuda.set_device(device)
    nccl.eager_connect_single_device(device)
    group._register_backend(device, dist.ProcessGroup.BackendType.NCCL, nccl)


def _nccl_of(group: dist.ProcessGroup) -> list[Any]:
    return [group._get_backend(device) for device in group._device_types if device.type == "cuda"]


def _enter_tables(group: dist.ProcessGroup, name: str, store: Store) -> None:
    """Where functional collectives (by name) and ``torch.distributed`` (by object) look groups up.

    Ranks are translated through the default group, in which every process is rank 0.
    """
    group._set_group_name(GroupName(name))
    _register_process_group(GroupName(name), group)
    for table, value in (
        (_world().pg_map, ("gloo", store)),
        (_world().pg_names, name),
        (_world().pg_group_ranks, {0: group.rank()}),
        (_world().pg_backend_config, "cpu:gloo,cuda:nccl"),
    ):
        table[group] = value


def _leave_tables(group: dist.ProcessGroup) -> None:
    if group not in _world().pg_names:
        return
    _unregister_process_group(group.group_name)
    for table in tables():
        table.pop(group, None)


def tables() -> tuple[dict[dist.ProcessGroup, Any], ...]:
    """Torch's tables of the process groups of this process."""
    world = _world()
    return (world.pg_map, world.pg_names, world.pg_group_ranks, world.pg_backend_config)


def _world() -> Any:
    return distributed_c10d._world
