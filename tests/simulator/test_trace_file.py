from __future__ import annotations

import json

import pytest

from ddit_batch.errors import RequestError
from ddit_batch.job import Shape
from ddit_batch.simulator import Workload
from ddit_batch.simulator.trace_file import read_trace

SIZE = {"height": 64, "width": 96, "num_frames": 9}


def made(*lines: dict[str, object]) -> Workload:
    data = "\n".join(json.dumps(SIZE | line) for line in lines).encode()
    return read_trace(data, file="trace.jsonl", model="model", steps=50)


def test_lines_become_jobs_in_order_of_arrival() -> None:
    """With what they say of themselves; what costs nothing is passed over."""
    late = {"arrival_s": 3, "prompt": "a cat", "seed": 1, "num_inference_steps": 8, "priority": 2}
    workload = made(late, {"arrival_s": 1.5, "model": "other", "batch": "mine"})

    first, second = workload.arrivals
    assert (first.arrived_s, first.model, first.batch_id, first.steps) == (1.5, "other", "mine", 50)
    assert (second.arrived_s, second.model, second.steps, second.priority) == (3.0, "model", 8, 2)
    assert second.shape == Shape(64, 96, 9)
    assert first.job_id != second.job_id


def test_line_without_a_time_arrives_at_the_start() -> None:
    """A prompt file with sizes is a workload."""
    assert [a.arrived_s for a in made({}, {"arrival_s": None}).arrivals] == [0.0, 0.0]


def test_batch_has_the_earliest_deadline_of_its_lines() -> None:
    """Batches without one are not listed."""
    lines = ({"batch": "a", "deadline_s": at_s} for at_s in (90, 60, 120))
    workload = made(*lines, {"batch": "b"})

    assert [(batch.batch_id, batch.deadline_s) for batch in workload.batches] == [("a", 60.0)]


def test_all_wrong_lines_are_told_at_once() -> None:
    """With line, field, value, rule and cure."""
    lines = ({"height": 7.5}, {"arrival_s": -1}, {"arivals": 1}, {"width": None})

    with pytest.raises(RequestError) as error:
        made(*lines)

    told = str(error.value).splitlines()
    assert told[0].startswith("trace.jsonl:1: height: 7.5: must be a whole number: use 7 or 8")
    assert told[1].startswith("trace.jsonl:2: arrival_s: -1")
    assert told[2].startswith("trace.jsonl:3: arivals: is no field of a line")
    assert told[3] == 'trace.jsonl:4: width: is missing: add "width": NUMBER'


def test_long_list_of_wrong_lines_is_cut() -> None:
    """The first twenty, and how many more there are."""
    with pytest.raises(RequestError) as error:
        made(*({"height": 0} for _ in range(30)))

    assert str(error.value).splitlines()[-1] == "... and 10 more"


def test_file_without_jobs_is_refused() -> None:
    """It would have no latency at all."""
    with pytest.raises(RequestError, match="holds no jobs"):
        read_trace(b"\n", file="trace.jsonl", model="model", steps=50)
