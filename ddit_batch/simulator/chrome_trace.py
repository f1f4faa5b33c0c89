"""Results as a trace that chrome://tracing and Perfetto show: a lane for each worker.

Pure. The format: "Trace Event Format", Google, complete events (``ph: X``) and metadata (``ph:
M``); times in microseconds. A node is a process of the trace, a worker a thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddit_batch.job import Phase, WorkerName
from ddit_batch.simulator.result import Result, Segment

_US = 1e6


def chrome_trace(
    results: Sequence[Result], workers: Sequence[tuple[WorkerName, str]]
) -> dict[str, object]:
    """The JSON object of a trace file; *workers* are names with their nodes, in order.

    Of several results each has processes of its own, named for its policy.
    """
    nodes = list(dict.fromkeys(node for _, node in workers))
    events: list[dict[str, object]] = []
    for number, result in enumerate(results):
        pids = {node: number * len(nodes) + at for at, node in enumerate(nodes)}
        lanes = {name: (pids[node], tid) for tid, (name, node) in enumerate(workers)}
        events += [_name("process_name", f"{result.policy} {node}", pids[node]) for node in nodes]
        events += [_name("thread_name", name, *lanes[name]) for name, _ in workers]
        for segment in result.segments:
            events += [_event(segment, *lanes[name]) for name in segment.workers]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _name(what: str, name: str, pid: int, tid: int = 0) -> dict[str, object]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _event(segment: Segment, pid: int, tid: int) -> dict[str, object]:
    denoises = segment.phase is Phase.DIT
    return {
        "ph": "X",
        "name": f"{segment.job_id} dop {segment.dop}" if denoises else f"{segment.job_id} decode",
        "cat": str(segment.phase),
        "pid": pid,
        "tid": tid,
        "ts": segment.begun_s * _US,
        "dur": (segment.ended_s - segment.begun_s) * _US,
        "args": {
            "job": segment.job_id,
            "dop": segment.dop,
            "from_step": segment.from_step,
            "to_step": segment.to_step,
            "overhead_s": segment.overhead_s,
        },
    }
