"""A group of one: what every worker is in when nobody joins it."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from ddit_batch.model_config import Parallelism
from ddit_batch.phases.sequence_parallel.group import Order, form_group, lone_group


def test_a_lone_leader_gives_orders_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent, not even into the default group, which need not exist."""
    monkeypatch.delattr(dist, "broadcast")

    lone_group("w0").order(Order.STEP)


def test_forming_a_group_of_oneself_takes_no_rendezvous() -> None:
    """The store is not asked."""
    formed = form_group(
        dist.Store.__new__(dist.HashStore),
        name="alone",
        members=("w0",),
        me="w0",
        parallelism=Parallelism(),
        device=torch.device("cpu"),
        timeout_s=1,
    )

    assert formed.is_lone


def test_closing_a_lone_group_ends_nothing() -> None:
    """It can be used and closed again."""
    group = lone_group("w0")
    group.close()
    group.close(abort=True)

    group.order(Order.END)


def test_an_error_of_a_step_taken_alone_keeps_its_name() -> None:
    """There is nobody whose fault it could be."""
    with pytest.raises(RuntimeError, match="a bug"), lone_group("w0").breaking("stepping"):
        raise RuntimeError("a bug")
