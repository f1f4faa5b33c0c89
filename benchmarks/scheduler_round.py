"""What a round of the scheduler costs while many jobs wait: observe and decide, and the looks.

Starts a Postgres and a Valkey of its own in a temporary folder. Half of the jobs are one batch of
mixed shapes; the others stand in batches of a hundred. Every DiT worker is idle, so that the policy
has something to do, and nothing is carried out, so that every round is alike.

    python benchmarks/scheduler_round.py [--jobs 100000] [--workers 64] [--policy static]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine, text

from ddit_batch.cost_model import CostModel
from ddit_batch.db.engine import make_engine
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.db.migrate import upgrade
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.db.step_times import step_observations
from ddit_batch.db.submission import submit
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.job import Phase, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.profile import known_profiles, make_cost_model
from ddit_batch.request import Request
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.scheduler.live import Pace
from ddit_batch.scheduler.lookout import Intervals, Lookout

MODEL = "wan2.1-t2v-1.3b"
SHAPES = ((480, 832, 81), (480, 832, 49), (320, 576, 81), (720, 1280, 81))
SMALL_BATCH = 100
ROUNDS = 20


def main() -> None:
    """Fill a database and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--policy", default="static")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ddit-bench-") as folder,
        running_postgres(Home(Path(folder) / "home")) as postgres,
    ):
        upgrade(postgres.service.url)
        engine = make_engine(postgres.service.url, pool_size=4)
        fill(engine, jobs=arguments.jobs, workers=arguments.workers)
        costs = make_cost_model(known_profiles().values())
        measure(engine, costs, arguments.policy)
        engine.dispose()


def fill(engine: Engine, *, jobs: int, workers: int) -> None:
    """Workers, and batches that wait for them; two encoded jobs for every DiT worker."""
    leases = LeaseStore(engine, lease_s=3600.0)
    for number in range(workers):
        leases.register(an_identity(Phase.DIT, number))
    leases.register(an_identity(Phase.ENCODE, 0))
    leases.register(an_identity(Phase.VAE, 0))
    submit_batch(engine, "large", jobs // 2)
    for number in range(jobs // 2 // SMALL_BATCH):
        submit_batch(engine, f"small {number}", SMALL_BATCH)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = 'encoded', embeddings_key = 'x' "
                "WHERE seq IN (SELECT seq FROM jobs ORDER BY seq LIMIT :some)"
            ),
            {"some": 2 * workers},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))


def an_identity(phase: Phase, number: int) -> WorkerIdentity:
    """A worker of one of several nodes."""
    node = f"node-{number // 8}"
    return WorkerIdentity(
        name=WorkerName(f"{phase}-{number}@{node}"),
        phase=phase,
        host=node,
        node=node,
        device="cuda:0",
        pid=1,
        models=(MODEL,),
        version="0",
    )


def submit_batch(engine: Engine, name: str, jobs: int) -> None:
    """A batch of so many jobs, of each shape in turn."""
    requests = [a_request(line) for line in range(1, jobs + 1)]
    submit(engine, requests, content_hash=name, name=name, out_url=None)


def a_request(line: int) -> Request:
    """A line of a usual length."""
    height, width, num_frames = SHAPES[line % len(SHAPES)]
    return Request(
        custom_id=f"clip-{line}",
        line=line,
        model=MODEL,
        prompt=f"A slow tracking shot of harbour number {line} at dawn, fishing boats, gulls, "
        "soft light over the water",
        negative_prompt="",
        height=height,
        width=width,
        num_frames=num_frames,
        num_inference_steps=50,
        guidance_scale=5.0,
        seed=line,
        fps=16,
    )


def measure(engine: Engine, costs: CostModel, policy: str) -> None:
    """Print the seconds of each part."""
    store = SchedulerStore(engine, term=begin_term(engine, holder="benchmark"))
    intervals = Intervals(backlog_s=0.0, share=1000.0)
    lookout = Lookout(engine, costs, partial(make_policy, policy), intervals)
    limits = Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5)
    window = max(Pace(tick_s=0.25, reconcile_s=0.5, lease_s=3.0).window, limits.look_ahead)
    observe = partial(store.snapshot, window=window, may_lose_workers=False)
    first = observe()
    ends_s = lookout.look(first) or {}
    snapshot = lookout.completed(observe(backlog=lookout.kinds))
    parts: dict[str, Callable[[], object]] = {
        "observe": lambda: observe(backlog=lookout.kinds),
        "decide": lambda: decide(snapshot, lookout.policy, limits),
        "look at the backlog": lambda: lookout.look(snapshot),
        "write estimated ends": lambda: store.record_ends(ends_s),
        "read step times": lambda: step_observations(engine),
    }
    print(f"{len(first.jobs)} jobs in view by arrival, {len(snapshot.jobs)} with the short ones")
    print(f"{len(lookout.kinds)} kinds, {len(ends_s)} batches, load {snapshot.recent.load:.3g}")
    for name, part in parts.items():
        seconds = []
        for _ in range(ROUNDS):
            begun_s = time.perf_counter()
            part()
            seconds.append(time.perf_counter() - begun_s)
        middle, worst = statistics.median(seconds), max(seconds)
        print(f"{name:<22} {1000 * middle:7.1f} ms, at most {1000 * worst:.1f} ms")


if __name__ == "__main__":
    main()
