"""Workloads from a spec: ``poisson:load=0.85,jobs=2000``. The same spec and dice, the same jobs.

Pure: the dice are an argument, and only ``random()`` is asked of them, whose sequence for a seed is
the same in every version of Python.

Load is what the arrivals ask for of what the GPUs have: arrival rate times mean GPU-seconds of a
job at dop 1, DiT and VAE, by GPUs. The mean is over the shapes by their weights, not over the jobs
that the dice give.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import log
from typing import Protocol

from ddit_batch.cost_model import CostModel
from ddit_batch.errors import RequestError
from ddit_batch.job import JobId, Shape
from ddit_batch.simulator.workload import Arrival, Workload

KINDS: Mapping[str, frozenset[str]] = {
    "poisson": frozenset({"load", "rate"}),
    "bursts": frozenset({"load", "rate", "size"}),
    "at-once": frozenset(),
}
COMMON = frozenset({"jobs", "steps", "shapes", "batches"})
SPEC_HELP = (
    "poisson (one by one), bursts (of size=50 jobs) or at-once, with load=0.85 or rate=JOBS/S, "
    "jobs=2000, steps=50, shapes=WIDTHxHEIGHTxFRAMES[*WEIGHT][/...], batches=NUMBER or each: "
    "poisson:load=0.85,jobs=2000"
)
_SHAPE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})(?:\*(\d+(?:\.\d+)?))?")
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")
_BURST_JOBS = 50
_JOBS = 2000


class Dice(Protocol):
    """Where chance comes from: a seeded ``random.Random``."""

    def random(self) -> float:
        """The next number, from 0 to below 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Which shapes a workload has, and how often each: weights need not add up to 1."""

    model: str
    shapes: tuple[Shape, ...]
    weights: tuple[float, ...]
    steps: int

    def draw(self, dice: Dice) -> Shape:
        """A shape."""
        sums = list(accumulate(self.weights))
        return self.shapes[bisect_right(sums, dice.random() * sums[-1])]

    def mean_gpu_s(self, costs: CostModel) -> float:
        """Mean GPU-seconds of a job at dop 1: its steps and its decode."""
        found = [costs.cost(self.model, shape) for shape in self.shapes]
        each = [self.steps * cost.at(1) + cost.decode_s for cost in found]
        weighted = sum(w * s for w, s in zip(self.weights, each, strict=True))
        return weighted / sum(self.weights)


def is_spec(text: str) -> bool:
    """Whether *text* has the form of a spec rather than of a file's name."""
    return text.partition(":")[0] in KINDS


def generate(
    spec: str, *, costs: CostModel, model: str, steps: int, gpus: int, dice: Dice
) -> Workload:
    """The workload that *spec* describes; see ``SPEC_HELP``.

    Args:
        spec: Its kind and its options.
        costs: For the load, and for the shapes: those that were measured, if the spec names none.
        model: Of all jobs.
        steps: Of each job, unless the spec says otherwise.
        gpus: That the load is meant for.
        dice: Chance, and nothing else is random.

    Raises:
        RequestError: The spec has another form; the message says what can be written.
    """
    kind, options = _parsed(spec)
    mix = _mix(spec, options, costs=costs, model=model, steps=steps)
    jobs = _whole(spec, options, "jobs", _JOBS)
    size = _whole(spec, options, "size", _BURST_JOBS) if kind == "bursts" else 1
    if kind == "at-once":
        times = [0.0] * jobs
    else:
        rate = _rate(spec, options, mix.mean_gpu_s(costs), gpus)
        times = list(_times(jobs, size, rate, dice))
    batches = _batches(spec, options, kind=kind, jobs=jobs, size=size)
    arrivals = (
        Arrival(
            job_id=JobId(f"{batch}-{number:06d}"),
            batch_id=batch,
            arrived_s=at_s,
            model=model,
            shape=mix.draw(dice),
            steps=mix.steps,
        )
        for number, (at_s, batch) in enumerate(zip(times, batches, strict=True), start=1)
    )
    return Workload(arrivals=tuple(arrivals))


def _times(jobs: int, size: int, rate: float, dice: Dice) -> Iterator[float]:
    """When each job comes: *size* at a time, with exponential gaps that make *rate* jobs/s."""
    at_s = 0.0
    for number in range(jobs):
        if number % size == 0 and number:
            at_s -= log(1.0 - dice.random()) * size / rate
        yield at_s


def _batches(
    spec: str, options: Mapping[str, str], *, kind: str, jobs: int, size: int
) -> list[str]:
    """The batch of each job: without ``batches`` each job, each burst or all are one."""
    if options.get("batches") == "each":
        numbers = list(range(jobs))
    elif "batches" in options:
        count = _whole(spec, options, "batches", 1)
        numbers = [number % count for number in range(jobs)]
    else:
        numbers = [0 if kind == "at-once" else number // size for number in range(jobs)]
    return [f"b{number:06d}" for number in numbers]


def _parsed(spec: str) -> tuple[str, dict[str, str]]:
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise RequestError(f"workload {spec!r}: {kind!r} is no kind: write {SPEC_HELP}")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or key in options or key not in KINDS[kind] | COMMON:
            keys = ", ".join(sorted(KINDS[kind] | COMMON))
            raise RequestError(
                f"workload {spec!r}: {part!r} is no option of {kind}: write key=value once, with "
                f"one of {keys}"
            )
        options[key] = value
    return kind, options


def _whole(spec: str, options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key, str(default))
    if not re.fullmatch(r"[1-9]\d{0,6}", text):
        raise RequestError(
            f"workload {spec!r}: {key} cannot be {text!r}: use a whole number from 1 to 9999999"
        )
    return int(text)


def _rate(spec: str, options: Mapping[str, str], mean_gpu_s: float, gpus: int) -> float:
    """Jobs a second."""
    given = [key for key in ("load", "rate") if key in options]
    if len(given) != 1:
        raise RequestError(f"workload {spec!r}: say either load or rate: add load=0.85")
    text = options[given[0]]
    if not _NUMBER.fullmatch(text) or not float(text):
        raise RequestError(
            f"workload {spec!r}: {given[0]} cannot be {text!r}: use a number above 0, such as 0.85"
        )
    return float(text) if given[0] == "rate" else float(text) * gpus / mean_gpu_s


def _mix(spec: str, options: Mapping[str, str], *, costs: CostModel, model: str, steps: int) -> Mix:
    steps = _whole(spec, options, "steps", steps)
    if "shapes" not in options:
        shapes = costs.shapes(model)
        if not shapes:
            raise RequestError(
                f"workload {spec!r}: no shape of {model} was measured: say shapes=832x480x81"
            )
        return Mix(model=model, shapes=shapes, weights=(1.0,) * len(shapes), steps=steps)
    matches = [_SHAPE.fullmatch(text) for text in options["shapes"].split("/")]
    found = [match for match in matches if match]
    weights = tuple(float(match[4] or 1) for match in found)
    if len(found) < len(matches) or not all(weights):
        raise RequestError(
            f"workload {spec!r}: shapes cannot be {options['shapes']!r}: write "
            "WIDTHxHEIGHTxFRAMES, with * and a weight above 0 if not 1, separated by /"
        )
    return Mix(
        model=model,
        shapes=tuple(Shape(int(m[2]), int(m[1]), int(m[3])) for m in found),
        weights=weights,
        steps=steps,
    )
