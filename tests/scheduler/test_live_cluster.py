"""The live scheduler with its rows and messages, and workers that come, go and resize at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
import rows
from fake_costs import COSTS
from puppets import Stage
from redis import Redis
from sqlalchemy import Engine, text

from ddit_batch.control import LiveControl
from ddit_batch.job import JobId, Phase, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.scheduler import live
from ddit_batch.scheduler.core import Limits
from ddit_batch.scheduler.live import LiveDriver, Pace

MakeDriver = Callable[..., LiveDriver]
NODE_OF = {WorkerName(f"dit-{n}@host"): f"node-{n // 4}" for n in range(6)}
JOBS = 5
TURNS = 600

WORKERS_OF_JOBS = """
SELECT job_id, unnest(workers) AS worker FROM segments WHERE ended_at IS NULL
UNION
SELECT job_id, unnest(workers) FROM group_plans WHERE is_open
UNION
SELECT id, substr(queue, 5) FROM jobs
WHERE dispatched_at IS NOT NULL AND state = 'encoded'
"""
"""Whose each worker is, as far as rows say: at work, about to join, or sent to."""
GROUPS = "SELECT workers FROM segments UNION SELECT workers FROM plans"


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead worker has taken from its queue is missed soon."""
    monkeypatch.setattr(live, "UNCLAIMED_S", 0.1)


@pytest.fixture
def stage(engine: Engine, control: LiveControl, redis: Redis) -> Stage:
    """No workers yet."""
    return Stage(engine, control, redis, random.Random())


@pytest.fixture
def encoded(engine: Engine) -> tuple[JobId, ...]:
    """Jobs that wait for DiT workers, with different lengths."""
    jobs = tuple(rows.submitted(engine, num_inference_steps=8 + 8 * n)[0] for n in range(JOBS))
    for job in jobs:
        rows.finished(engine, rows.claimed(engine, job))
    return jobs


def drivers(make_driver: MakeDriver, policy: str, dice: random.Random) -> Iterator[LiveDriver]:
    """The leading scheduler; now and then it is another one."""
    driver = None
    while True:
        if driver is None or dice.random() < 0.03:
            driver = make_driver(
                policy=make_policy(policy, COSTS),
                pace=Pace(tick_s=0.01, reconcile_s=0.0, lease_s=0.0),
                limits=Limits(look_ahead=8, decode_backlog=100, max_worker_losses=100),
            )
        yield driver


def check(engine: Engine) -> None:
    """No worker is two jobs', and no group goes across nodes."""
    with engine.connect() as connection:
        jobs_of: dict[str, set[str]] = {}
        for job, worker in connection.execute(text(WORKERS_OF_JOBS)):
            jobs_of.setdefault(worker, set()).add(job)
        shared = {worker: jobs for worker, jobs in jobs_of.items() if len(jobs) > 1}
        assert not shared, f"in two groups: {shared}"
        for group in connection.scalars(text(GROUPS)):
            assert len({NODE_OF[WorkerName(name)] for name in group}) <= 1, group


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("policy", ["elastic", "ddit"])
def test_no_worker_is_ever_in_two_groups_and_every_job_is_denoised(
    make_driver: MakeDriver,
    stage: Stage,
    encoded: tuple[JobId, ...],
    policy: str,
    seed: int,
) -> None:
    """Whoever dies, comes back, is late or takes over in between."""
    engine, dice = stage.engine, stage.dice
    dice.seed(seed)
    for name, node in NODE_OF.items():
        stage.enter(name, node=node)
    leading = drivers(make_driver, policy, dice)

    for turn in range(TURNS):
        if dice.random() < 0.5:
            next(leading).round()
        stage.act()
        check(engine)
        missing = sorted(NODE_OF.keys() - stage.puppets.keys())
        if turn < TURNS / 3 and dice.random() < 0.04 and len(missing) < 3:
            stage.dies(dice.choice(sorted(stage.puppets)))
        elif missing and dice.random() < 0.1:
            name = dice.choice(missing)
            stage.enter(name, node=NODE_OF[name])
        if all(rows.row(engine, job)["latents_key"] for job in encoded):
            break

    assert [rows.phase_of(engine, job) for job in encoded] == [Phase.VAE] * JOBS
    assert stage.changes >= JOBS - 2, "groups have formed"
