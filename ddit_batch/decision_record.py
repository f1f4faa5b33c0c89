"""One decision as a value: everything that it was made from, and what came out of it.

Pure. The live driver records decisions (``scheduler/recorder.py``), the database keeps some of them
(``db/decision_log.py``), ``ddit explain`` reads them, and a test replays them: since the core keeps
nothing between calls, the same snapshot, policy, limits and costs give the same commands.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ddit_batch.cost_model import Cost, CostModel
from ddit_batch.errors import RecordError
from ddit_batch.job import JobId, Shape
from ddit_batch.policy import make_policy
from ddit_batch.policy.base import Policy
from ddit_batch.scheduler.commands import Command, LoseWorker, Tell
from ddit_batch.scheduler.core import Limits, decide
from ddit_batch.snapshot import JobView, Snapshot
from ddit_batch.typed_json import decode, encode

FORM = 1
"""The form of a record; another release may write another one."""
LONGEST_BYTES = 256 * 2**20
"""Of unpacked text: what a packed record could at worst claim to be is not unpacked."""
_FAST = 1
"""zlib's level: three times as fast as its default, for a fifth more bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCosts:
    """What a decision was told of the costs of one model."""

    model: str
    listed: tuple[Shape, ...]
    """The shapes that the cost model lists for it."""
    shapes: tuple[Shape, ...]
    """Those, and the ones of the jobs that the decision saw."""
    costs: tuple[Cost, ...]
    """One for each of ``shapes``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision."""

    term: int
    """Of the scheduler that made it."""
    policy: str
    """The spec that makes its policy."""
    limits: Limits
    costs: tuple[ModelCosts, ...]
    """Of the models that its jobs are of, in order of name."""
    snapshot: Snapshot
    commands: tuple[Command, ...]

    @property
    def at_s(self) -> float:
        """When it was made, on the clock of its snapshot."""
        return self.snapshot.now_s

    def job(self, job_id: JobId) -> JobView | None:
        """The job as the decision saw it; None if it did not."""
        return next((job for job in self.snapshot.jobs if job.job_id == job_id), None)

    def commands_for(self, job_id: JobId) -> tuple[Command, ...]:
        """What was to be done about one job."""
        return tuple(
            command
            for command in self.commands
            if not isinstance(command, LoseWorker) and command.job.job_id == job_id
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCosts(CostModel):
    """The costs of a record: its table, and the shapes that the model of that time listed."""

    listed: Mapping[str, tuple[Shape, ...]]

    def shapes(self, model: str) -> tuple[Shape, ...]:
        """The shapes that were listed for *model*."""
        return self.listed.get(model, ())


def record_of(
    snapshot: Snapshot,
    policy: Policy,
    limits: Limits,
    commands: tuple[Command, ...],
    *,
    term: int = 0,
) -> DecisionRecord:
    """The record of a decision that was just made."""
    return DecisionRecord(
        term=term,
        policy=policy.name,
        limits=limits,
        costs=_costs_in_use(snapshot, policy.costs),
        snapshot=snapshot,
        commands=commands,
    )


def replay(record: DecisionRecord) -> tuple[Command, ...]:
    """What the core decides on the record's snapshot now; the record's commands, if all is well."""
    return decide(record.snapshot, policy_of(record), record.limits)


def policy_of(record: DecisionRecord) -> Policy:
    """The policy of the record, with the costs of that time.

    Raises:
        ConfigError: This release has no such policy.
    """
    return make_policy(record.policy, costs_of(record))


def costs_of(record: DecisionRecord) -> CostModel:
    """The costs of that time, for the models of the record's jobs."""
    return RecordedCosts(
        table={
            (given.model, shape): cost
            for given in record.costs
            for shape, cost in zip(given.shapes, given.costs, strict=True)
        },
        listed={given.model: given.listed for given in record.costs},
    )


def is_news(commands: tuple[Command, ...], before: tuple[Command, ...]) -> bool:
    """Whether a decision did more than to tell leaders again what the one *before* told them."""
    told = {_words(command) for command in before if isinstance(command, Tell)}
    return any(not isinstance(c, Tell) or _words(c) not in told for c in commands)


def packed(record: DecisionRecord) -> bytes:
    """The record as compressed JSON."""
    text = json.dumps([FORM, encode(DecisionRecord, record)], separators=(",", ":"))
    return zlib.compress(text.encode(), _FAST)


def unpacked(data: bytes) -> DecisionRecord:
    """The record that *data* was packed from.

    Raises:
        RecordError: It is none, or another release wrote it.
    """
    try:
        form, value = json.loads(unpacked_text(data))
        if form != FORM:
            raise RecordError(
                f"a decision on record has the form {form}, this release reads {FORM}"
            )
        return decode(DecisionRecord, value)
    except (ValueError, TypeError, KeyError) as exc:
        raise RecordError(f"a decision on record cannot be read: {exc}") from exc


def unpacked_text(data: bytes) -> bytes:
    """The JSON in a packed record: enough to see whether an id stands in it.

    Raises:
        RecordError: It is no packed record.
    """
    try:
        return zlib.decompressobj().decompress(data, LONGEST_BYTES)
    except zlib.error as exc:
        raise RecordError(f"a decision on record cannot be read: {exc}") from exc


def _words(command: Tell) -> tuple[object, ...]:
    job = command.job
    return (job.job_id, job.attempt, command.instruction, command.group)


def _costs_in_use(snapshot: Snapshot, costs: CostModel) -> tuple[ModelCosts, ...]:
    seen: dict[str, set[Shape]] = {}
    for job in snapshot.jobs:
        seen.setdefault(job.model, set()).add(job.shape)
    found = []
    for model, shapes in sorted(seen.items()):
        listed = tuple(costs.shapes(model))
        every = tuple(sorted(shapes.union(listed)))
        found.append(
            ModelCosts(
                model=model,
                listed=listed,
                shapes=every,
                costs=tuple(costs.cost(model, shape) for shape in every),
            )
        )
    return tuple(found)
