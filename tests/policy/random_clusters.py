"""Random snapshots for ``elastic``, with all that it looks at: several nodes, profiles, batches.

Unlike ``clusters.py``, whose profile is the paper's, steps here need not get shorter with workers,
3 and 6 may be legal, batches have shares and deadlines, jobs came at different times. Hypothesis
draws the sizes and a seed, which is cheap enough for thousands of snapshots a test; a failure
shrinks to the fewest nodes and jobs that show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from fake_costs import a_cost
from hypothesis import strategies as st
from worlds import a_job, a_worker, a_world

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobState, Phase, Shape, WorkerName
from ddit_batch.policy.elastic import Elastic
from ddit_batch.policy.elastic_tuning import Tuning
from ddit_batch.snapshot import BatchView, JobView, Recent, Snapshot, Whereabouts, WorkerView

S = JobState
MODELS = ("one", "two")
SHAPES = tuple(Shape(16 * n, 16, 9) for n in range(1, 4))
NOW_S = 1000.0
GONE = WorkerName("dit-99@host")
LADDERS = ((1, 2, 4, 8), (1, 2, 3, 6), (1, 3), (1, 2, 5), (1,))
STATES = (*[S.ENCODED] * 5, *[S.DENOISING] * 7, S.DENOISED, S.DECODING, S.QUEUED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A snapshot, and the policy that is to plan for it."""

    world: Snapshot
    policy: Elastic


def rarely(dice: Random) -> bool:
    """Once in seven times."""
    return dice.random() < 1 / 7


def random_costs(dice: Random) -> CostModel:
    """Steps that get shorter with workers, or longer, or both."""
    table = {}
    for model in MODELS:
        dops = dice.choice(LADDERS)
        for shape in SHAPES:
            step_s = [dice.uniform(0.05, 20.0)]
            for _ in dops[1:]:
                step_s.append(step_s[-1] * dice.uniform(0.4, 1.3))
            cost = a_cost(*step_s, optimal=1, dops=dops)
            table[model, shape] = replace(cost, decode_s=dice.uniform(0.1, 10.0))
    return CostModel(table=table)


def _workers(dice: Random, nodes: int) -> tuple[WorkerView, ...]:
    """Nodes of different sizes; all workers of a node serve the same models."""
    workers: list[WorkerView] = []
    for node in range(nodes):
        models = frozenset(dice.choice([MODELS, MODELS, MODELS[:1], MODELS[1:]]))
        first = len(workers) + 1
        workers += [
            a_worker(
                number,
                node=f"node-{node}",
                models=models,
                decodes=not rarely(dice),
                draining=rarely(dice),
            )
            for number in range(first, first + dice.randint(1, 6))
        ]
    if rarely(dice):
        workers.append(a_worker(90, Phase.VAE, models=frozenset(MODELS[:1])))
    return tuple(workers)


def _a_group(
    dice: Random, model: str, dops: Sequence[int], free: list[WorkerView]
) -> tuple[WorkerView, ...]:
    """Workers of one node, free no longer; () if there are none."""
    able = [worker for worker in free if model in worker.models]
    if not able:
        return ()
    node = dice.choice(able).node
    able = [worker for worker in able if worker.node == node]
    group = tuple(dice.sample(able, dice.choice([dop for dop in dops if dop <= len(able)])))
    for worker in group:
        free.remove(worker)
    return group


def _names(workers: Sequence[WorkerView]) -> tuple[WorkerName, ...]:
    return tuple(worker.name for worker in workers)


def _running(dice: Random, job: JobView, dops: Sequence[int], free: list[WorkerView]) -> JobView:
    """Denoised; perhaps told to shrink, to grow or to stop, perhaps short of a follower."""
    group = _a_group(dice, job.model, dops, free)
    if not group:
        return job
    names, pending = _names(group), None
    near = [worker for worker in free if worker.node == group[0].node]
    wider = [dop for dop in dops if 0 < dop - len(names) <= len(near)]
    wish = dice.choice(["", "", "", "shrink", "grow", "stop"])
    if wish == "stop":
        pending = ()
    elif wish == "shrink" and len(names) > 1:
        pending = names[: dice.choice([dop for dop in dops if dop < len(names)])]
    elif wish == "grow" and wider:
        more = dice.sample(near, dice.choice(wider) - len(names))
        for worker in more:
            free.remove(worker)
        pending = (*names, *_names(more))
    elif rarely(dice) and len(names) > 1:
        lost = dice.choice(names[1:])
        names = tuple(GONE if name == lost else name for name in names)
    return replace(
        job,
        state=S.DENOISING,
        holder=group[0].incarnation,
        group=names,
        dop=len(names),
        attempt=1,
        pending=pending,
        cancel_requested=rarely(dice),
    )


def _settled(dice: Random, job: JobView, state: JobState, workers: Sequence[WorkerView]) -> JobView:
    """Nobody has it; it may have been with some workers of a node before."""
    node = dice.choice(workers).node
    had = [worker.name for worker in workers if worker.node == node] if dice.random() < 0.5 else []
    step = job.steps if state is S.DENOISED else job.step
    last_group = tuple(dice.sample(had, min(len(had), 3)))
    return replace(job, state=state, step=step, last_group=last_group)


def _job(
    dice: Random,
    number: int,
    costs: CostModel,
    workers: tuple[WorkerView, ...],
    free: list[WorkerView],
) -> JobView:
    steps = dice.randint(1, 60)
    job = a_job(
        number,
        S.QUEUED,
        batch_id=dice.choice(["b0", "b1", "b2"]),
        model=dice.choice(MODELS),
        shape=dice.choice(SHAPES),
        steps=steps,
        step=dice.randrange(steps),
        priority=int(rarely(dice)),
    )
    dops, state = costs.cost(job.model, job.shape).dops, dice.choice(STATES)
    if state is S.DENOISING:
        return _running(dice, job, dops, free)
    is_sent = state in {S.ENCODED, S.DENOISED} and rarely(dice)
    if state is S.DECODING or is_sent:
        group = _a_group(dice, job.model, dops if state is S.ENCODED else (1,), free)
        if not group:
            return job
        held = replace(job, state=state, attempt=2, group=_names(group))
        if is_sent:
            return replace(held, message=Whereabouts.SENT)
        return replace(held, holder=group[0].incarnation, step=steps)
    return _settled(dice, job, state, workers)


def _batches(dice: Random) -> tuple[BatchView, ...]:
    return tuple(
        BatchView(
            batch_id=batch_id,
            share=dice.choice([0.5, 1.0, 3.0]),
            deadline_s=NOW_S + dice.uniform(-100.0, 1000.0) if dice.random() < 0.5 else None,
            work_s=dice.uniform(0.0, 3000.0),
        )
        for batch_id in dice.choice([(), ("b1",), ("b2", "b0")])
    )


def a_scene(seed: int, nodes: int, jobs: int) -> Scene:
    """So many nodes of up to six workers, and so many jobs that have them or want them."""
    dice = Random(seed)
    costs, workers = random_costs(dice), _workers(dice, nodes)
    free = [worker for worker in workers if worker.phase is Phase.DIT]
    views = [_job(dice, number, costs, workers, free) for number in range(1, jobs + 1)]
    came_s = sorted(dice.uniform(0.0, NOW_S) for _ in views)
    world = replace(
        a_world(*workers, *(replace(v, arrived_s=s) for v, s in zip(views, came_s, strict=True))),
        now_s=NOW_S,
        batches=_batches(dice),
        recent=Recent(
            load=dice.uniform(0.0, 1.5),
            usual_load=dice.uniform(0.0, 1.5),
            slow_s=dice.choice([None, 0.0, dice.uniform(0.0, 2000.0)]),
        ),
    )
    tuning = Tuning(patience=dice.choice([0.3, 2.0, 1e9]))
    return Scene(world=world, policy=Elastic(costs=costs, tuning=tuning))


scenes = st.builds(a_scene, st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 16))
"""Up to four nodes, and up to sixteen jobs."""
