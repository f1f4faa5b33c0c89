"""A group that loses a member breaks, and its job goes on from the last step, in the same bits."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from group_stage import CPU, MakeStagedModel, Stage, StagedJob, wait
from tiny_model import MakeRequest

from ddit_batch.errors import GroupBroken, OutOfMemory
from ddit_batch.model_config import Backend

BOTH = pytest.mark.parametrize("backend", list(Backend))
GPUS = ("cuda:0", "cuda:1")
ALSO_NCCL = pytest.mark.parametrize(
    "stage",
    [
        pytest.param((CPU,), id="gloo"),
        pytest.param(
            GPUS,
            id="nccl",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    torch.cuda.device_count() < len(GPUS), reason="NCCL needs a GPU for each member"
                ),
            ],
        ),
    ],
    indirect=True,
)
NOTICED_S = 2.0
"""On busy cores; ``benchmarks/group_changes.py`` measures tens of milliseconds on idle ones."""


@ALSO_NCCL
@BOTH
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_a_follower_killed_in_mid_step_costs_no_step(
    backend: Backend,
    solver: str,
    stage: Stage,
    staged: MakeStagedModel,
    make_request: MakeRequest,
) -> None:
    """The leader goes on alone in its process, later with the follower's successor, bit for bit."""
    model, request = staged(solver, backend=backend), make_request()
    job = _begun(model.job(request), 0, 1)
    process = job.leader.process
    stage.players[1].aside("signal_in_step", signal.SIGKILL).wait()

    broke = job.leader.do("steps_until_broken", 4).wait()

    assert broke.step == 3
    assert broke.at_s - stage.players[1].signalled_s() < NOTICED_S
    job.left_alone(without=(1,))
    job.steps(1).wait()
    stage.replace(1)
    job.change(0, 1)
    job.steps(2).wait()
    job.release()
    assert process.is_alive()
    assert model.is_right(job, request)


@BOTH
def test_survivors_of_a_group_of_four_regroup(
    backend: Backend, stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """All three learn of the death at once; two of them go on together."""
    model, request = staged(backend=backend), make_request()
    job = _begun(model.job(request), 0, 1, 2, 3)
    stage.players[2].aside("signal_in_step", signal.SIGKILL).wait()

    broke = job.leader.do("steps_until_broken", 4).wait()
    raised = job.left_alone(without=(2,))

    assert [type(error) for error in raised] == [GroupBroken, GroupBroken]
    assert time.monotonic() - stage.players[2].signalled_s() < 2 * NOTICED_S
    assert broke.step == 3
    job.change(0, 3)
    job.steps(3).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))
    stage.replace(2)


@ALSO_NCCL
def test_a_hung_follower_is_given_the_groups_time(
    stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """The leader goes on after the timeout; the follower, woken, finds itself left and is free."""
    model, request = staged(), make_request()
    job = _begun(model.job(request), 0, 1, timeout_s=1.0)
    stage.players[1].aside("signal_in_step", signal.SIGSTOP).wait()

    broke = job.leader.do("steps_until_broken", 4).wait()

    assert 0.9 <= broke.at_s - stage.players[1].signalled_s() < 1.0 + NOTICED_S
    job.steps(1).wait()
    stage.players[1].signal(signal.SIGCONT)
    (raised,) = job.left_alone()
    assert isinstance(raised, GroupBroken)
    job.change(0, 1)
    job.steps(2).wait()
    job.release()
    assert model.is_right(job, request)


def test_a_leader_killed_in_mid_step_frees_its_followers(
    stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """They raise at once, keep process and model, and take the job on from a checkpoint."""
    model, request = staged(), make_request()
    job = model.job(request)
    job.start(0)
    job.steps(2).wait()
    job.release()
    job.start(0)
    job.change(0, 1)
    job.leader.aside("signal_in_step", signal.SIGKILL).wait()
    job.steps(1)

    raised = job.without_leader()

    assert time.monotonic() - stage.players[0].signalled_s() < NOTICED_S
    assert [type(error) for error in raised] == [GroupBroken]
    job.start(1)
    job.steps(4).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))
    stage.replace(0)


@pytest.mark.parametrize("before", [(0,), (0, 1)], ids=str)
def test_a_newcomer_that_dies_before_it_has_the_state_costs_no_step(
    before: tuple[int, ...], stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """The change breaks the new group; the leader goes on alone from the state that it holds."""
    model, request = staged(), make_request()
    job = _begun(model.job(request), *before)
    epoch = stage.form(0, 1, 2, 3).wait()
    stage.players[2].signal(signal.SIGKILL)
    stage.players[2].process.join()
    waiting = [stage.players[rank].do("follow", epoch) for rank in {1, 3} - set(before)]

    with pytest.raises(GroupBroken):
        job.leader.do("change", epoch, has_newcomers=True).wait()

    for pending in waiting:
        with pytest.raises(GroupBroken):
            pending.wait()
    job.left_alone()
    job.steps(3).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))
    stage.replace(2)


def test_a_newcomer_that_never_comes_leaves_the_old_group_stepping(
    stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Forming fails in its own time, in the side thread; the steps go on beside it."""
    model, request = staged(), make_request()
    job = _begun(model.job(request), 0, 1)
    stage.players[2].signal(signal.SIGSTOP)
    formation = stage.form(0, 1, 2, form_timeout_s=0.5)

    job.steps(2).wait()
    for pending in formation.pending[:2]:
        with pytest.raises(GroupBroken, match=r"did not come in 0\.5 s"):
            pending.wait()

    job.steps(1).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))
    stage.players[2].signal(signal.SIGCONT)
    with pytest.raises(GroupBroken):
        formation.pending[2].wait()


@pytest.mark.parametrize("rank", [0, 1], ids=["leader", "follower"])
def test_out_of_memory_in_a_group_keeps_its_name(
    rank: int, stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Who has not enough memory raises OutOfMemory, the others GroupBroken; no step is lost."""
    model, request = staged(), make_request()
    job = _begun(model.job(request), 0, 1)
    stage.players[rank].aside("fill_memory_in_step").wait()

    with pytest.raises(OutOfMemory if rank == 0 else GroupBroken):
        job.steps(1).wait()

    (raised,) = job.left_alone()
    assert isinstance(raised, GroupBroken if rank == 0 else OutOfMemory)
    job.steps(3).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))


def test_a_group_that_was_closed_is_broken(
    staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """A step in it raises and sends nothing, neither into it nor into another group."""
    model, request = staged(), make_request()
    job = _begun(model.job(request), 0, 1)
    job.leader.aside("close_groups").wait()

    broke = job.leader.do("steps_until_broken", 1).wait()

    assert "closed" in broke.message
    assert [type(error) for error in job.left_alone()] == [GroupBroken]
    job.steps(3).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))


def test_a_death_is_noticed_where_no_collective_would_notice_it(
    stage: Stage, staged: MakeStagedModel
) -> None:
    """Members who listen to each other, as on GPUs, miss the dead one within moments."""
    staged()
    epoch = stage.form(0, 1, 2).wait()
    wait(*[stage.players[rank].aside("watch", epoch) for rank in range(3)])

    begun_s = time.monotonic()
    stage.players[1].signal(signal.SIGKILL)

    for rank in (0, 2):
        missed, at_s = stage.players[rank].unasked().wait()
        assert missed == 1
        assert at_s - begun_s < NOTICED_S
    stage.replace(1)


def test_who_leaves_in_order_is_not_missed(stage: Stage, staged: MakeStagedModel) -> None:
    """Not even by who leaves later; the watch ends without a word, and so do its threads."""
    staged()
    before = stage.players[0].do("leftovers").wait()
    epoch = stage.form(0, 1).wait()
    wait(*[stage.players[rank].aside("watch", epoch) for rank in (0, 1)])

    for rank in (0, 1):
        stage.players[rank].aside("leave_watch").wait()
    wait(*[stage.players[rank].aside("close_groups") for rank in (0, 1)])

    for rank in (0, 1):
        with pytest.raises(TimeoutError):
            stage.players[rank].unasked().wait(timeout_s=0.2)
    assert stage.players[0].do("leftovers").wait() == before


def test_who_breaks_off_is_missed(stage: Stage, staged: MakeStagedModel) -> None:
    """A member that leaves in the midst of work says so, and the others wait for it no longer."""
    staged()
    epoch = stage.form(0, 1).wait()
    wait(*[stage.players[rank].aside("watch", epoch) for rank in (0, 1)])

    stage.players[1].aside("leave_watch", abort=True).wait()

    missed, _ = stage.players[0].unasked().wait()
    assert missed == 1
    stage.players[0].aside("leave_watch").wait()
    wait(*[stage.players[rank].aside("close_groups") for rank in (0, 1)])


def _begun(job: StagedJob, *ranks: int, **limits: float) -> StagedJob:
    """Two steps of a small request alone, the third in a group of *ranks*."""
    job.start(ranks[0])
    job.steps(2).wait()
    if len(ranks) > 1:
        job.change(*ranks, **limits)
    job.steps(1).wait()
    return job
