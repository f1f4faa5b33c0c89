"""Workloads from JSON Lines: prompt files whose lines say when they arrive.

Pure over bytes. The fields are those of prompt files (``request.py``), of which only what costs and
order depend on is read, and three more: ``arrival_s`` (seconds from the file's own origin, 0 if not
given), ``batch`` (a name, one for all lines if not given) and ``deadline_s`` (on the clock of
``arrival_s``; a batch has the earliest that its lines give). Nothing else is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from ddit_batch.errors import RequestError
from ddit_batch.job import JobId, Shape
from ddit_batch.jsonl import jsonl_lines
from ddit_batch.line_aliases import FIELDS, unknown_field
from ddit_batch.line_rules import MAX_PRIORITY, Fault, Real, Rule, Text, Whole, shown
from ddit_batch.simulator.workload import Arrival, Workload
from ddit_batch.snapshot import BatchView
from ddit_batch.written import Fields

_LONGEST_S = 1e9
_NAME = Text(max_chars=200, model="a workload", empty_cure="give it a name, or leave it out")
_PIXELS = Whole(low=1, high=100_000)
_SECONDS = Real(low=0.0, high=_LONGEST_S)
RULES: Mapping[str, Rule] = {
    "arrival_s": _SECONDS,
    "deadline_s": _SECONDS,
    "batch": _NAME,
    "model": _NAME,
    "height": _PIXELS,
    "width": _PIXELS,
    "num_frames": Whole(low=1, high=100_000),
    "num_inference_steps": Whole(low=1, high=10_000),
    "priority": Whole(low=-MAX_PRIORITY, high=MAX_PRIORITY),
}
"""What is read of a line."""

_SHOWN_FAULTS = 20
_NEEDED = ("height", "width", "num_frames")
_KNOWN = (*FIELDS, "arrival_s", "batch", "deadline_s")


def read_trace(data: bytes, *, file: str, model: str, steps: int) -> Workload:
    """The workload in *data*, the bytes of *file*.

    Args:
        data: JSON Lines.
        file: What messages call it.
        model: The model of lines that name none.
        steps: The denoising steps of lines that do not say.

    Raises:
        RequestError: The message has the first lines that are wrong, with rule and cure.
    """
    faults: list[str] = []
    arrivals: list[Arrival] = []
    deadlines: dict[str, float] = {}
    for number, fields in jsonl_lines(data):
        line = _Line(fields)
        faults += [_located(fault, file, number) for fault in line.faults]
        if not line.faults:
            arrivals.append(line.arrival(number, model=model, steps=steps))
            batch_id, deadline_s = arrivals[-1].batch_id, line.real("deadline_s", inf)
            deadlines[batch_id] = min(deadlines.get(batch_id, inf), deadline_s)
    if not faults and not arrivals:
        faults = [f"{file}: holds no jobs: write a line for each"]
    if faults:
        more = len(faults) - _SHOWN_FAULTS
        rest = [f"... and {more} more"] if more > 0 else []
        raise RequestError("\n".join([*faults[:_SHOWN_FAULTS], *rest]))
    return Workload(
        arrivals=tuple(sorted(arrivals, key=lambda arrival: arrival.arrived_s)),
        batches=tuple(
            BatchView(batch_id=batch_id, deadline_s=deadline_s)
            for batch_id, deadline_s in deadlines.items()
            if deadline_s < inf
        ),
    )


class _Line:
    """One line: what it says, in its final types, and what is wrong with it."""

    def __init__(self, fields: Fields | Fault) -> None:
        self._values: dict[str, object] = {}
        self.faults: list[Fault] = []
        if isinstance(fields, Fault):
            self.faults.append(fields)
            return
        for name, value in fields.items():
            if name not in _KNOWN:
                self.faults.append(unknown_field(name, known=_KNOWN))
            elif name in RULES and value is not None:
                checked = RULES[name].check(value)
                if isinstance(checked, Fault):
                    self.faults.append(replace(checked, field=name, value=shown(value)))
                else:
                    self._values[name] = checked
        for name in _NEEDED:
            if fields.get(name) is None:
                self.faults.append(
                    Fault(field=name, rule="is missing", cure=f'add "{name}": NUMBER')
                )

    def whole(self, name: str, default: int = 0) -> int:
        """The whole number that it says."""
        value = self._values.get(name, default)
        assert isinstance(value, int)
        return value

    def real(self, name: str, default: float) -> float:
        """The number that it says."""
        value = self._values.get(name, default)
        assert isinstance(value, float)
        return value

    def arrival(self, number: int, *, model: str, steps: int) -> Arrival:
        """The job that it stands for; *number* is the line's."""
        batch_id = str(self._values.get("batch", "batch"))
        return Arrival(
            job_id=JobId(f"{batch_id}-{number:06d}"),
            batch_id=batch_id,
            arrived_s=self.real("arrival_s", 0.0),
            model=str(self._values.get("model", model)),
            shape=Shape(self.whole("height"), self.whole("width"), self.whole("num_frames")),
            steps=self.whole("num_inference_steps", steps),
            priority=self.whole("priority"),
        )


def _located(fault: Fault, file: str, line: int) -> str:
    """``trace.jsonl:17: height: 7.5: must be a whole number: use 7 or 8``."""
    parts = (f"{file}:{line}", fault.field, fault.value, fault.rule, fault.cure)
    return ": ".join(filter(None, parts))
