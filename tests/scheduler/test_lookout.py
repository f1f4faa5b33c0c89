"""What the live scheduler looks at now and then, and what it writes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import rows
from fake_costs import ANY, FixedCosts
from sqlalchemy import Engine, text

from ddit_batch.db.claims import ClaimStore
from ddit_batch.db.submission import Wishes, submit
from ddit_batch.job import JobId, Phase, Shape
from ddit_batch.policy.static import Static
from ddit_batch.profile import known_profiles, make_cost_model
from ddit_batch.recent import FEWEST_ENDS, LATENCY_SPAN, LOAD_SPAN, PRIOR_LOAD, PRIOR_WEIGHT
from ddit_batch.scheduler.live import LiveDriver
from ddit_batch.scheduler.lookout import Intervals, Lookout
from ddit_batch.snapshot import BatchView, Progress, Snapshot

MakeDriver = Callable[..., LiveDriver]
ALWAYS = Intervals(costs_s=0.0, backlog_s=0.0, share=1e9)
WORK_S = 8 * ANY.step_s[0]
"""Of a job of ``rows``: eight steps of a shape that the costs know nothing more of."""


def static(costs: object) -> Static:
    """The policy that is made of the costs."""
    return Static(costs=costs, dop=1)


def looking(engine: Engine) -> Lookout:
    """A lookout that looks whenever it is asked."""
    return Lookout(engine, FixedCosts(), static, ALWAYS)


def seen(engine: Engine, lookout: Lookout) -> Snapshot:
    """A snapshot after a look."""
    lookout.look(rows.seen(engine))
    return lookout.completed(rows.seen(engine))


def dit_workers(engine: Engine) -> int:
    """How many there are: who claims something brings a worker of its own."""
    return sum(worker.phase is Phase.DIT for worker in rows.seen(engine).workers)


def load(offered: float) -> float:
    """The load that is told where so much was offered."""
    return (offered + PRIOR_WEIGHT * PRIOR_LOAD) / (1 + PRIOR_WEIGHT)


def finished_all(engine: Engine, job: JobId) -> None:
    """Have the job's three phases done."""
    for _ in Phase:
        rows.finished(engine, rows.claimed(engine, job))


def test_load_is_what_came_over_what_workers_could_do(engine: Engine) -> None:
    """In the last spans of a mean job's work, done meanwhile or not."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    done, *_ = rows.submitted(engine, FEWEST_ENDS)
    finished_all(engine, done)

    found = seen(engine, looking(engine)).recent

    assert found.load == pytest.approx(load(FEWEST_ENDS / (dit_workers(engine) * LOAD_SPAN)))
    assert found.slow_s is None
    with engine.begin() as connection:
        statement = "UPDATE jobs SET state = 'succeeded', artifact_key = 'x', finished_at = now()"
        connection.execute(text(statement + " WHERE state = 'queued'"))
    slow_s = seen(engine, looking(engine)).recent.slow_s
    assert slow_s is not None
    assert 0 < slow_s < 60


def test_nothing_is_made_of_an_empty_database(engine: Engine) -> None:
    """A new installation has the load that is assumed of one."""
    rows.registered(engine, Phase.DIT)

    found = seen(engine, looking(engine)).recent

    assert found.load == pytest.approx(PRIOR_LOAD)
    assert found.slow_s is None


def test_old_jobs_count_with_what_is_left_and_old_ends_not_at_all(engine: Engine) -> None:
    """What was submitted before the span is a backlog."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    done, half = rows.submitted(engine, 2)
    finished_all(engine, done)
    rows.finished(engine, rows.claimed(engine, half))
    claim = rows.claimed(engine, half)
    checkpoint = ("checkpoint", 6)
    ClaimStore(engine).give_back(claim, reason="drain", checkpoint=checkpoint)
    with engine.begin() as connection:
        for column in ("batches SET created_at =", "jobs SET finished_at ="):
            statement = f"UPDATE {column} {column.split()[2]} - make_interval(secs => :s)"
            connection.execute(text(statement), {"s": LATENCY_SPAN * WORK_S + 1})

    found = seen(engine, looking(engine)).recent

    left = 2 / 8
    assert found.load == pytest.approx(load(left / (dit_workers(engine) * LOAD_SPAN)))
    assert found.slow_s is None


def test_batch_with_a_deadline_shows_the_work_of_all_its_jobs(engine: Engine) -> None:
    """In the window or not; before the first look, of those in the window."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    deadline = datetime.now(UTC) + timedelta(hours=1)
    made = submit(
        engine,
        [rows.a_request(line) for line in range(1, 6)],
        content_hash=uuid4().hex,
        name="x",
        out_url=None,
        wishes=Wishes(share=3.0, deadline=deadline),
    )
    rows.submitted(engine)
    lookout = looking(engine)
    store = rows.leading(engine)

    (before,) = lookout.completed(store.snapshot(window=2, may_lose_workers=False)).batches
    lookout.look(rows.seen(engine))
    (after,) = lookout.completed(store.snapshot(window=2, may_lose_workers=False)).batches

    assert before.work_s == pytest.approx(2 * WORK_S)
    assert after == BatchView(
        batch_id=made.batch_id,
        share=3.0,
        deadline_s=pytest.approx(deadline.timestamp(), abs=1e-3),
        work_s=pytest.approx(5 * WORK_S),
    )


def test_shortest_jobs_of_a_batch_are_seen_once_the_backlog_was_looked_at(
    engine: Engine, make_driver: MakeDriver
) -> None:
    """The driver hands on what its lookout saw: a short job far behind is in view."""
    rows.registered(engine, Phase.DIT, name=rows.LEADER)
    requests = [rows.a_request(line, num_inference_steps=50) for line in range(1, 30)]
    requests.append(rows.a_request(30, num_inference_steps=3))
    submit(engine, requests, content_hash=uuid4().hex, name="x", out_url=None)
    views: list[Snapshot] = []

    class Watched(Lookout):
        def completed(self, snapshot: Snapshot) -> Snapshot:
            views.append(snapshot)
            return super().completed(snapshot)

    driver = make_driver(lookout=Watched(engine, FixedCosts(), static, ALWAYS))

    driver.round()
    driver.round()

    steps = [{job.steps for job in view.jobs} for view in views]
    assert steps == [{50}, {50, 3}]


def test_live_steps_make_a_new_policy_with_new_costs(engine: Engine) -> None:
    """As soon as they say something; then not again before they say something else."""
    model = "wan2.1-t2v-1.3b"
    costs = make_cost_model(known_profiles().values())
    lookout = Lookout(engine, costs, static, ALWAYS)
    lookout.refine()
    assert lookout.policy.costs is costs
    _a_segment(engine, model, step_s=1000.0)

    lookout.refine()

    shape = Shape(64, 96, 9)
    assert lookout.costs.cost(model, shape).at(1) > 10 * costs.cost(model, shape).at(1)
    policy = lookout.policy
    assert policy.costs is lookout.costs
    lookout.refine()
    assert lookout.policy is policy


def test_fixed_profile_stays_as_it_is(engine: Engine) -> None:
    """Whatever live steps take."""
    _a_segment(engine, "tiny-wan", step_s=1000.0)
    costs = make_cost_model(known_profiles().values(), is_fixed=True)
    lookout = Lookout(engine, costs, static, ALWAYS)

    lookout.refine()

    assert lookout.costs is costs


def _a_segment(engine: Engine, model: str, *, step_s: float) -> None:
    """Several jobs denoised, each step of which took so long."""
    worker = rows.registered(engine, Phase.DIT, name=rows.LEADER, models=(model,))
    rows.registered(engine, Phase.ENCODE, models=(model,))
    for job in rows.submitted(engine, 4, model=model):
        rows.finished(engine, rows.claimed(engine, job))
        claim = rows.claimed(engine, job, by=worker)
        rows.leading(engine).record_progress(
            {job: Progress(attempt=claim.attempt, step=8, step_s=step_s)}
        )
        rows.finished(engine, claim)
    with engine.begin() as connection:
        statement = "UPDATE segments SET started_at = ended_at - make_interval(secs => :s)"
        connection.execute(text(statement), {"s": 8 * step_s})
