"""How fast the decision core is: single plans, and a whole trace through the simulator.

Prints seconds of processor time on one core for

- ``plan()`` of a snapshot: 64 GPUs with 64 running and 1,000 waiting jobs; 4,096 GPUs, all busy,
  with a window of 20,000 waiting jobs; each twice, when a worker has just become free and when all
  of them have;
- the trace of 2,700 arrivals on 128 GPUs, with 6 steps a job (a load below 1) and with 50 (a
  six-fold overload).

    python benchmarks/core_speed.py [--policy ddit,elastic] [--bar]

With ``--bar`` it exits with 1 if a figure is above its bar. The trace is that of Hetu-DiT; where it
is from stands in ``trace_cogvideox.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ddit_batch.cost_model import CostModel
from ddit_batch.job import Incarnation, JobId, JobState
from ddit_batch.policy import make_policy, split_specs
from ddit_batch.profile import find_profile, make_cost_model, parse_shape
from ddit_batch.simulator import Arrival, Cluster, Workload, simulate
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts

TRACE = Path(__file__).with_name("trace_cogvideox.json")
PROFILE = "cogvideox1.5-5b-l20"
MODEL = "cogvideox1.5-5b"
PLAN_BARS_S = {(64, 64, 1_000): 0.005, (4096, 4096, 20_000): 0.200}
"""By GPUs, running and waiting jobs."""
TRACE_BARS_S = {6: 5.0, 50: 60.0}
"""By steps of a job."""


def main() -> None:
    """Print every figure, and compare it with its bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", default="ddit")
    parser.add_argument("--bar", action="store_true", help="exit 1 if a figure is above its bar")
    arguments = parser.parse_args()
    costs = make_cost_model([find_profile(PROFILE)], max_dop=8)
    missed = []
    for spec in split_specs(arguments.policy):
        for name, seconds, bar_s in figures(spec, costs):
            verdict = "" if seconds < bar_s else "  ABOVE"
            print(f"{spec:28} {name:52} {seconds:9.4f} s   bar {bar_s:6.3f} s{verdict}", flush=True)
            missed += [name] if verdict else []
    if missed and arguments.bar:
        sys.exit(f"above the bar: {'; '.join(missed)}")


def figures(spec: str, costs: CostModel) -> list[tuple[str, float, float]]:
    """What was measured, its seconds, and its bar."""
    policy = make_policy(spec, costs)
    found = []
    for (gpus, running, waiting), bar_s in PLAN_BARS_S.items():
        for free in (1, running // 2):
            world = snapshot(gpus, running - free, waiting)
            name = f"plan: {gpus} GPUs, {running - free} running, {waiting} waiting"
            found.append((name, fastest_s(lambda world=world: policy.plan(world)), bar_s))
    for steps, bar_s in TRACE_BARS_S.items():
        workload = trace(steps)
        begun_s = time.process_time()
        result = simulate(workload, costs, policy, Cluster(gpus=128))
        seconds = time.process_time() - begun_s
        name = (
            f"trace: {len(workload.arrivals)} jobs of {steps} steps, {result.decisions} decisions"
        )
        found.append((name, seconds, bar_s))
    return found


def fastest_s(call: Callable[[], object]) -> float:
    """Processor time of the fastest of five calls: the others were disturbed."""
    times = []
    for _ in range(5):
        begun_s = time.process_time()
        call()
        times.append(time.process_time() - begun_s)
    return min(times)


def trace(steps: int) -> Workload:
    """The trace, with so many steps a job."""
    data = json.loads(TRACE.read_text("utf-8"))
    shapes = [parse_shape(text) for text in data["shapes"]]
    return Workload(
        arrivals=tuple(
            Arrival(
                job_id=JobId(f"b-{number:06d}"),
                batch_id="b",
                arrived_s=number * data["interval_s"],
                model=MODEL,
                shape=shapes[int(digit)],
                steps=steps,
            )
            for number, digit in enumerate("".join(data["order"]))
        )
    )


def snapshot(gpus: int, running: int, waiting: int) -> Snapshot:
    """*running* jobs of one worker each, at various steps, and *waiting* ones of three batches."""
    workers = Cluster(gpus=gpus).workers(frozenset({MODEL}))
    shapes = [parse_shape(text) for text in json.loads(TRACE.read_text("utf-8"))["shapes"]]
    jobs = []
    for number in range(running + waiting):
        runs = number < running
        jobs.append(
            JobView(
                job_id=JobId(f"b{number % 3}-{number:06d}"),
                batch_id=f"b{number % 3}",
                state=JobState.DENOISING if runs else JobState.ENCODED,
                priority=0,
                seq=number,
                model=MODEL,
                shape=shapes[number % len(shapes)],
                steps=50,
                step=number * 7 % 50 if runs else 0,
                attempt=1,
                dop=1 if runs else 0,
                message=Whereabouts.NONE,
                group=(workers[number].name,) if runs else (),
                holder=Incarnation(number + 1) if runs else None,
                worker_losses=0,
                cancel_requested=False,
                arrived_s=float(number),
            )
        )
    return Snapshot(
        now_s=float(running + waiting),
        jobs=tuple(jobs),
        workers=workers,
        waiting_to_decode=0,
        may_lose_workers=True,
    )


if __name__ == "__main__":
    main()
