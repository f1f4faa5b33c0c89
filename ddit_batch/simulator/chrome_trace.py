"""A result as a trace that chrome://tracing and Perfetto show: a lane for each worker.

Pure. The format: "Trace Event Format", Google, complete events (``ph: X``) and metadata (``ph:
M``); times in microseconds. A node is a process of the trace, a worker a thread.
"""

from __future__ import annotations

from ddit_batch.job import Phase, WorkerName
from ddit_batch.simulator.result import Result, Segment

_US = 1e6


def chrome_trace(result: Result, workers: tuple[tuple[WorkerName, str], ...]) -> dict[str, object]:
    """The JSON object of a trace file; *workers* are names with their nodes, in order."""
    nodes = {node: number for number, node in enumerate(dict.fromkeys(n for _, n in workers))}
    lanes = {name: (nodes[node], number) for number, (name, node) in enumerate(workers)}
    events: list[dict[str, object]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": node}}
        for node, pid in nodes.items()
    ]
    events += [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}
        for name, (pid, tid) in lanes.items()
    ]
    for segment in result.segments:
        events += [_event(segment, *lanes[name]) for name in segment.workers]
    return {"displayTimeUnit": "ms", "otherData": {"policy": result.policy}, "traceEvents": events}


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
