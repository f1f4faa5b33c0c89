"""What must stay true of torch for process groups that no world knows: these fail if it changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.distributed import _functional_collectives as functional
from torch.distributed import distributed_c10d

from ddit_batch.errors import ConfigError
from ddit_batch.phases.sequence_parallel import torch_private

CPU = torch.device("cpu")
_numbers = itertools.count(1)


@pytest.fixture
def made() -> Iterator[dist.ProcessGroup]:
    """A group of one, made as those of more are."""
    process_group = torch_private.make_process_group(
        dist.HashStore(),
        name=f"made{next(_numbers)}",
        rank=0,
        size=1,
        device=CPU,
        form_timeout_s=7,
        timeout_s=5,
    )
    yield process_group
    torch_private.drop_process_group(process_group)


def test_a_process_gets_a_world_of_its_own_once() -> None:
    """Asking again changes nothing."""
    torch_private.ensure_lone_world()
    world = dist.group.WORLD

    torch_private.ensure_lone_world()

    assert dist.group.WORLD is world
    assert (dist.get_rank(), dist.get_world_size()) == (0, 1)


def test_a_process_in_somebodys_world_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started by torchrun, a worker would take its own rank 0 for another's."""
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)

    with pytest.raises(ConfigError, match=r"a torch\.distributed world of 4.*without torchrun"):
        torch_private.ensure_lone_world()


def test_torchs_own_functions_know_the_group(made: dist.ProcessGroup) -> None:
    """Rank, size, backend and collectives by object."""
    tensor = torch.ones(2)

    dist.all_reduce(tensor, group=made)
    dist.broadcast(tensor, group=made, group_src=0)

    assert (dist.get_rank(made), dist.get_world_size(made)) == (0, 1)
    assert dist.get_backend(made) == "gloo"
    assert tensor.tolist() == [1, 1]


def test_functional_collectives_find_the_group(made: dist.ProcessGroup) -> None:
    """By object and by name: the libraries' attention and sharding go through them."""
    tensor = torch.arange(4.0)

    by_object = functional.all_to_all_single(tensor, None, None, made)
    by_name = functional.all_to_all_single(tensor, None, None, made.group_name)

    assert torch.equal(by_object, tensor)
    assert torch.equal(by_name, tensor)


def test_a_dropped_group_stands_in_no_table_of_torch(made: dist.ProcessGroup) -> None:
    """Not in those that we fill, and in no other; its name is free."""
    holders = (distributed_c10d, distributed_c10d._world)
    tables = [value for holder in holders for value in vars(holder).values() if type(value) is dict]
    assert sum(made in table for table in tables) == len(torch_private.tables()) == 4

    torch_private.drop_process_group(made)

    assert not any(made in table for table in tables)
    with pytest.raises(RuntimeError, match="made"):
        functional.all_to_all_single(torch.ones(1), None, None, made.group_name)


def test_dropping_twice_is_harmless(made: dist.ProcessGroup) -> None:
    """Whoever finds the error first drops it; others may, too."""
    torch_private.drop_process_group(made)
    torch_private.drop_process_group(made)

    assert made not in distributed_c10d._world.pg_names


def test_the_groups_timeout_is_not_that_of_its_forming(made: dist.ProcessGroup) -> None:
    """It can be set once the members have met."""
    gloo = made._get_backend(CPU)

    assert gloo.options._timeout.total_seconds() == 5


def test_attention_on_the_cpu_gives_the_sums_that_a_ring_needs() -> None:
    """(B, heads, tokens) of log-sum-exp beside torch's own attention."""
    query, key, value = torch.randn(3, 1, 2, 5, 8).unbind()

    output, log_sums = torch_private.cpu_flash_attention(
        query, key, value, dropout_p=0.0, is_causal=False
    )

    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    scores = query @ key.transpose(-1, -2) / 8**0.5
    assert torch.allclose(output, plain, atol=1e-6)
    assert torch.allclose(log_sums, scores.logsumexp(-1), atol=1e-5)


@pytest.mark.skipif(not dist.is_nccl_available(), reason="torch was built without NCCL")
def test_nccl_has_what_a_group_on_gpus_needs() -> None:
    """The names only; no GPU is needed to look."""
    options = dist.ProcessGroupNCCL.Options()
    options.config.blocking = 0

    assert hasattr(options, "_timeout")
    for name in ("eager_connect_single_device", "abort", "get_error"):
        assert hasattr(dist.ProcessGroupNCCL, name)
