"""Jobs that grow, shrink and move give the bits that they give on one worker, undisturbed."""

from __future__ import annotations

import pytest
import torch
from group_stage import MakeStagedModel, Stage, StagedJob, wait
from tiny_model import MakeRequest

from ddit_batch.errors import PhaseError
from ddit_batch.model_config import Backend

BOTH = pytest.mark.parametrize("backend", list(Backend))
UNEVEN = {"height": 48, "width": 48}
"""3 x 3 x 3 = 27 tokens, which neither 2 nor 4 ranks divide; the small request has 48."""


def _grow_shrink_and_move(a: StagedJob, b: StagedJob) -> None:
    """Ten steps each, A and B beside each other on four workers."""
    a.start(0)
    b.start(2)
    wait(a.steps(1), b.steps(1))
    a.change(0, 1, steps_meanwhile=1)
    b.change(2, 3)
    wait(a.steps(2), b.steps(3))
    b.release()  # preempted: A takes all four
    a.change(0, 1, 2, 3, steps_meanwhile=1)
    a.steps(2).wait()
    a.change(0)
    b.start(1)  # goes on from its checkpoint beside A
    b.change(1, 2, steps_meanwhile=1)
    wait(a.steps(1), b.steps(2))
    a.release()  # A moves to 2, B makes room
    b.change(1, 3)
    a.start(2)
    wait(a.steps(2), b.steps(3))
    a.release()
    b.release()


@BOTH
@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_two_jobs_that_grow_shrink_and_move_keep_their_bits(
    backend: Backend, solver: str, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """A: 0, 01, 0123, 0, then 2; B: 23, preempted, 12, 13; nobody is in two groups."""
    model = staged(solver, backend=backend)
    requests = [
        make_request(num_inference_steps=10),
        make_request(num_inference_steps=10, seed=8, prompt="waves"),
    ]
    a, b = (model.job(request) for request in requests)

    _grow_shrink_and_move(a, b)

    assert torch.equal(a.latents(), model.alone(requests[0]))
    assert torch.equal(b.latents(), model.alone(requests[1]))


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_xfuser_splits_tokens_that_do_not_divide_exactly(
    solver: str, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """27 tokens over two and four ranks give the bits of one: nobody attends to the padding."""
    model = staged(solver, backend="xfuser")
    requests = [
        make_request(**UNEVEN, num_inference_steps=10),
        make_request(**UNEVEN, num_inference_steps=10, seed=8, prompt="waves"),
    ]
    a, b = (model.job(request) for request in requests)

    _grow_shrink_and_move(a, b)

    assert torch.equal(a.latents(), model.alone(requests[0]))
    assert torch.equal(b.latents(), model.alone(requests[1]))


def test_requests_in_turn_are_masked_each_as_it_needs(
    staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """The same group takes 27 tokens, then 48, then 27: the mask is that of each."""
    model = staged(backend="xfuser")

    for changes in (UNEVEN, {}, UNEVEN):
        request = make_request(**changes)
        job = _run(model.job(request), 0, 1, 2, 3)

        assert torch.equal(job.latents(), model.alone(request))


def test_attending_to_the_padding_would_be_seen(
    stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Without the mask the same run is off by more than rounding: these tests can fail."""
    model, request = staged(backend="xfuser"), make_request(**UNEVEN)
    wait(*[player.do("unmask_padding") for player in stage.players])

    job = _run(model.job(request), 0, 1, 2, 3)

    wait(*[player.do("forget_models") for player in stage.players])
    assert _relative_error(job.latents(), model.alone(request)) > 1e-3


@BOTH
@pytest.mark.parametrize("ranks", [(3, 1), (0, 2, 3, 1)], ids=str)
def test_members_may_stand_in_any_order(
    backend: Backend, ranks: tuple[int, ...], staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Who leads and who holds which tokens is a matter of the order, not of names."""
    model, request = staged(backend=backend), make_request()

    job = _run(model.job(request), *ranks)

    assert torch.equal(job.latents(), model.alone(request))


@BOTH
def test_three_workers_share_a_step_where_they_divide_the_heads(
    backend: Backend, staged_with_six_heads: MakeStagedModel, make_request: MakeRequest
) -> None:
    """A dop need not be a power of two."""
    model, request = staged_with_six_heads(backend=backend), make_request()

    job = _run(model.job(request), 2, 0, 1)

    assert torch.equal(job.latents(), model.alone(request))


@BOTH
@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
def test_halves_that_ask_with_and_without_the_prompt_keep_the_bits(
    backend: Backend, guidance_scale: float, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """CFG-parallel on two and four workers, guided; unguided the same groups split the tokens."""
    model = staged(backend=backend, guidance=True)
    request = make_request(guidance_scale=guidance_scale)
    job = model.job(request)

    job.start(0)
    job.change(0, 1)
    job.steps(3).wait()
    job.change(0, 3, 2, 1)
    job.steps(3).wait()
    job.release()

    assert torch.equal(job.latents(), model.alone(request))


def test_a_group_of_odd_size_has_no_halves(
    staged_with_six_heads: MakeStagedModel, make_request: MakeRequest
) -> None:
    """CFG-parallel or not, three workers split the tokens of both questions."""
    model, request = staged_with_six_heads(guidance=True), make_request()

    job = _run(model.job(request), 0, 1, 2)

    assert torch.equal(job.latents(), model.alone(request))


@pytest.mark.parametrize("ranks", [(0, 1), (0, 1, 2, 3)], ids=str)
def test_rings_differ_by_rounding_only(
    ranks: tuple[int, ...], staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """A ring of two, alone and across Ulysses, merges parts of an attention: no bits, but close."""
    model, request = staged(backend="xfuser", ring=2), make_request()

    job = _run(model.job(request), *ranks)

    assert _relative_error(job.latents(), model.alone(request)) < 1e-5


@pytest.mark.parametrize(
    ("parallelism", "changes", "reason"),
    [
        ({"backend": "diffusers"}, UNEVEN, "do not divide 27 tokens, and diffusers cannot pad"),
        ({"ring": 2}, UNEVEN, "do not divide 27 tokens, and rings cannot pad"),
    ],
    ids=["diffusers", "ring"],
)
def test_a_group_that_does_not_fit_is_refused_before_the_step(
    parallelism: dict[str, object],
    changes: dict[str, int],
    reason: str,
    staged: MakeStagedModel,
    make_request: MakeRequest,
) -> None:
    """Every member refuses and says why; the job goes on alone from where it was."""
    model, request = staged(**parallelism), make_request(**changes)
    job = model.job(request)
    job.start(0)
    job.steps(2).wait()
    job.change(0, 1)

    with pytest.raises(PhaseError, match=reason):
        job.steps(1).wait()

    (raised,) = job.left_alone()
    assert isinstance(raised, PhaseError)
    job.steps(4).wait()
    job.release()
    assert torch.equal(job.latents(), model.alone(request))


def test_heads_that_the_workers_do_not_divide_are_refused(
    staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Three workers and four heads."""
    job = staged().job(make_request())
    job.start(0)
    job.change(0, 1, 2)

    with pytest.raises(PhaseError, match="3 ranks exchange heads and do not divide 4 heads"):
        job.steps(1).wait()

    assert [type(raised) for raised in job.left_alone()] == [PhaseError, PhaseError]


@BOTH
def test_groups_that_were_left_leave_nothing_behind(
    backend: Backend, stage: Stage, staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """Ten groups later the tables of torch, open files and threads are what they were."""
    job = staged(backend=backend, guidance=True).job(make_request(num_inference_steps=12))
    _run(job, 0, 1, steps=4)
    stage.close_groups()
    before = wait(*[player.do("leftovers") for player in stage.players])

    job.start(0)
    for _ in range(5):
        job.change(0, 1, 2, 3)
        job.steps(1).wait()
        job.change(0, 1)
    job.release()
    stage.close_groups()

    assert wait(*[player.do("leftovers") for player in stage.players]) == before


def test_a_newcomer_waits_for_the_state_longer_than_a_group_waits(
    staged: MakeStagedModel, make_request: MakeRequest
) -> None:
    """A step of the old group may take longer than the new group's timeout."""
    model, request = staged(), make_request()
    job = model.job(request)
    job.start(0)
    job.steps(4).wait()

    job.change(0, 1, newcomers_wait_s=0.5, timeout_s=0.2)
    job.steps(2).wait()
    job.release()

    assert torch.equal(job.latents(), model.alone(request))


def _run(job: StagedJob, *ranks: int, steps: int = 6) -> StagedJob:
    """So many steps, the first two of them alone."""
    job.start(ranks[0])
    job.steps(2).wait()
    job.change(*ranks)
    job.steps(steps - 2).wait()
    job.release()
    return job


def _relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
