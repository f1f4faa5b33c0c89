from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from random import Random

import pytest
from fake_costs import COSTS, PAPER
from hypothesis import given, settings
from hypothesis import strategies as st
from random_worlds import limits, worlds
from worlds import LIMITS, a_held_job, a_job, a_worker, a_world, shared_workers

from ddit_batch.cost import Basis, Live
from ddit_batch.cost_model import CostModel
from ddit_batch.decision_record import (
    DecisionRecord,
    is_news,
    packed,
    policy_of,
    record_of,
    replay,
    unpacked,
)
from ddit_batch.errors import RecordError
from ddit_batch.job import JobState, Phase, Shape
from ddit_batch.model_profile import ModelProfile
from ddit_batch.policy import POLICIES, make_policy
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import BatchView, JobView, Recent, Snapshot, Whereabouts
from ddit_batch.typed_json import decode, encode

SPECS = (
    *sorted(POLICIES),
    "static:dop=2",
    "ddit:order=waiting-first,decode=group",
    "ddit:promotion=off",
    "dp:groups=fixed",
    "partitioned:sizes=2/2/4,dops=1/2/4",
)
SHAPES = (*(shape for _, shape in PAPER), Shape(64, 96, 9))
often = settings(max_examples=50)
seconds = st.floats(0, 1e9)
batches = st.builds(
    BatchView,
    batch_id=st.text(max_size=12),
    share=st.floats(0.01, 100.0),
    deadline_s=st.none() | seconds,
    work_s=seconds,
)
recents = st.fixed_dictionaries({field.name: st.floats(0.01, 1e5) for field in fields(Recent)}).map(
    lambda numbers: Recent(**numbers)
)


@st.composite
def busy_worlds(draw: st.DrawFn) -> Snapshot:
    """Random worlds with shapes that scale, and with what only some drivers fill in."""
    world = draw(worlds())
    jobs = tuple(
        replace(
            job,
            model=draw(st.sampled_from([job.model, "open-sora"])),
            shape=draw(st.sampled_from(SHAPES)),
            arrived_s=draw(seconds),
            last_group=draw(st.sampled_from([(), *((w.name,) for w in world.workers)])),
        )
        for job in world.jobs
    )
    workers = tuple(
        replace(worker, models=worker.models | {"open-sora"}, decodes=draw(st.booleans()))
        for worker in world.workers
    )
    return replace(
        world,
        now_s=draw(seconds),
        jobs=tuple(_alone(job, jobs) for job in jobs),
        workers=workers,
        batches=tuple(draw(st.lists(batches, max_size=3))),
        recent=draw(recents),
    )


def _alone(job: JobView, jobs: tuple[JobView, ...]) -> JobView:
    """The job, but not sent to a worker that another one has: no scheduler would have done that."""
    others = {name for other in jobs if other is not job for name in other.group}
    if job.held or others.isdisjoint(job.group):
        return job
    return replace(job, message=Whereabouts.NONE, group=())


def recorded(world: Snapshot, spec: str, bounds: Limits) -> DecisionRecord:
    """The record of what *spec* decides on a world."""
    policy = make_policy(spec, COSTS)
    return record_of(world, policy, bounds, decide(world, policy, bounds), term=7)


@often
@given(busy_worlds(), st.sampled_from(SPECS), limits)
def test_record_is_the_same_after_it_was_packed(world: Snapshot, spec: str, bounds: Limits) -> None:
    """Every field of it, to the last digit of a float."""
    record = recorded(world, spec, bounds)

    assert unpacked(packed(record)) == record


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=20)
@given(world=busy_worlds(), bounds=limits, seed=st.integers(0, 2**32))
def test_replay_gives_the_commands_that_were_recorded(
    spec: str, world: Snapshot, bounds: Limits, seed: int
) -> None:
    """From the record alone, and in whatever order its tuples stand."""
    record = unpacked(packed(recorded(world, spec, bounds)))
    dice = Random(seed)
    shuffled = replace(
        record,
        snapshot=replace(
            record.snapshot,
            jobs=tuple(dice.sample(record.snapshot.jobs, len(record.snapshot.jobs))),
            workers=tuple(dice.sample(record.snapshot.workers, len(record.snapshot.workers))),
            batches=tuple(dice.sample(record.snapshot.batches, len(record.snapshot.batches))),
        ),
    )

    assert replay(record) == record.commands
    assert replay(shuffled) == record.commands


PROFILE = ModelProfile(
    name="sora",
    models=("open-sora",),
    heads=16,
    geometry=CostModel().unknown.geometry,
    steps=30,
    step_s={1: {P: 0.1 * n for n, P in enumerate(SHAPES[:3], 1)}, 2: {SHAPES[2]: 0.17}},
    is_measured=True,
    lone_exponent=CostModel().unknown.lone_exponent,
    encode_s=0.1,
    encode_basis=Basis.MEASURED,
    decode_s={SHAPES[0]: 0.3},
    decode_is_measured=True,
)


@pytest.mark.parametrize("spec", SPECS)
def test_record_has_the_costs_that_its_policy_asked_for(spec: str) -> None:
    """Of a real cost model: a shape that was never measured is recorded, and still not listed."""
    costs = CostModel(profiles=(PROFILE,))
    crew = [a_worker(n, models=frozenset({"open-sora"})) for n in range(4)]
    odd = a_job(5, JobState.ENCODED, model="open-sora", shape=Shape(200, 300, 51))
    world = a_world(*crew, odd)
    policy = make_policy(spec, costs)

    record = unpacked(packed(record_of(world, policy, LIMITS, decide(world, policy, LIMITS))))

    known = policy_of(record).costs
    assert known.cost("open-sora", odd.shape) == costs.cost("open-sora", odd.shape)
    assert known.shapes("open-sora") == costs.shapes("open-sora")
    assert replay(record) == record.commands != ()


def test_replay_notices_another_decision() -> None:
    """Else its tests would pass on anything: other limits, other commands."""
    world = a_world(*shared_workers(), a_worker(0), *(a_job(n) for n in range(1, 6)))
    record = recorded(world, "static", LIMITS)

    other = replay(replace(record, limits=replace(LIMITS, look_ahead=1)))

    assert len(record.commands) == LIMITS.look_ahead
    assert other == record.commands[:1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        packed(recorded(a_world(a_job(1)), "static", LIMITS))[:-9],
    ],
)
def test_damaged_record_is_refused(data: bytes) -> None:
    """With the error that readers know."""
    with pytest.raises(RecordError, match="cannot be read"):
        unpacked(data)


def test_told_again_is_no_news_and_anything_else_is() -> None:
    """A leader's pending change stands in each decision until it has made it."""
    worker = a_worker(0, draining=True)
    world = a_world(worker, a_held_job(1, JobState.DENOISING, worker))
    told = decide(world, make_policy("static", COSTS), LIMITS)
    later = decide(
        replace(world, jobs=(replace(world.jobs[0], step=3, pending=()),)),
        make_policy("static", COSTS),
        LIMITS,
    )

    assert told
    assert is_news(told, ())
    assert not is_news(later, told)
    assert not is_news((), told)
    lost = decide(
        a_world(replace(worker, lease_expired=True), *world.jobs),
        make_policy("static", COSTS),
        LIMITS,
    )
    assert is_news(lost, told)


def test_type_without_a_form_is_refused() -> None:
    """When it is first seen, whatever the value."""

    @dataclass(frozen=True)
    class Odd:
        table: dict[str, int]

    with pytest.raises(TypeError, match=r"dict.* has no form in JSON"):
        encode(Odd, Odd({}))


def test_json_says_nothing_but_what_the_types_allow() -> None:
    """An enum's other words, a union's other members and unknown fields are errors."""
    written = json.loads(json.dumps(encode(Recent, Recent(load=0.5))))

    assert decode(Recent, written) == Recent(load=0.5)
    assert decode(Recent, {}) == Recent()
    with pytest.raises(TypeError):
        decode(Recent, {**written, "mood": 1})
    with pytest.raises(ValueError, match="fine"):
        decode(Live, "fine")
    assert decode(Phase, "dit") is Phase.DIT
