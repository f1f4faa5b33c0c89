"""What it takes to put decisions on record, by the size of the cluster: time and bytes.

    python benchmarks/decision_records.py

Prints a line a cluster: the best of five, without the database.
"""

from __future__ import annotations

import time

from ddit_batch.cost_model import CostModel
from ddit_batch.decision_record import packed, record_of, replay, unpacked
from ddit_batch.job import Incarnation, JobId, JobState, Phase, Shape, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

CLUSTERS = ((2, 16), (4, 64), (64, 1024), (512, 4000))
"""DiT workers, and jobs in the window of each of two waiting states."""
NODE = 8
LIMITS = Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5)
MODEL = "wan2.1-t2v-1.3b"
ROUNDS = 5


def main() -> None:
    """Measure and print."""
    policy = make_policy("static", CostModel())
    for count, window in CLUSTERS:
        world = _world(count, window)
        commands = decide(world, policy, LIMITS)
        took_s = []
        for _ in range(ROUNDS):
            began_s = time.perf_counter()
            data = packed(record_of(world, policy, LIMITS, commands))
            took_s.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        record = unpacked(data)
        read_s = time.perf_counter() - began_s
        assert replay(record) == commands
        print(
            f"{count:4} workers, {len(world.jobs):5} jobs: {len(data):7} bytes, "
            f"{min(took_s) * 1e3:6.2f} ms to make and pack, {read_s * 1e3:6.2f} ms to read"
        )


def _world(count: int, window: int) -> Snapshot:
    workers = tuple(_worker(number) for number in range(count))
    running = tuple(
        _job(n, JobState.DENOISING, worker=worker, step=n % 50)
        for n, worker in enumerate(workers, 1)
    )
    states = (JobState.QUEUED, JobState.ENCODED)
    waiting = tuple(_job(count + n, states[n % 2]) for n in range(1, 2 * window + 1))
    return Snapshot(
        now_s=1.78e9,
        jobs=running + waiting,
        workers=workers,
        waiting_to_decode=0,
        may_lose_workers=True,
    )


def _worker(number: int) -> WorkerView:
    node = f"gpu-host-{number // NODE:02d}"
    return WorkerView(
        name=WorkerName(f"dit-{number}@{node}"),
        incarnation=Incarnation(number + 1),
        phase=Phase.DIT,
        host=node,
        node=node,
        models=frozenset({MODEL}),
        draining=False,
        lease_expired=False,
    )


def _job(
    number: int, state: JobState, *, worker: WorkerView | None = None, step: int = 0
) -> JobView:
    return JobView(
        job_id=JobId(f"b0123456789-{number:06d}"),
        batch_id="b0123456789",
        state=state,
        priority=0,
        seq=number,
        model=MODEL,
        shape=Shape(480, 832, 81 + number % 3),
        steps=50,
        step=step,
        attempt=1 if worker else 0,
        dop=1 if worker else 0,
        message=Whereabouts.NONE,
        group=(worker.name,) if worker else (),
        holder=worker.incarnation if worker else None,
        worker_losses=0,
        cancel_requested=False,
        arrived_s=1.77e9 + number * 0.3713,
    )


if __name__ == "__main__":
    main()
