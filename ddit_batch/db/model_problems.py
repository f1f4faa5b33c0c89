"""Which models a worker could not load when it last started, and why: those who wait ask for it."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Engine, delete, insert

from ddit_batch.db.service_models import ModelProblem
from ddit_batch.job import Phase, WorkerName


def record_model_problems(
    engine: Engine, worker: WorkerName, phase: Phase, problems: Mapping[str, str]
) -> None:
    """Have *problems*, a message for each model, stand in place of what *worker* said before."""
    with engine.begin() as connection:
        connection.execute(delete(ModelProblem).where(ModelProblem.worker == worker))
        if problems:
            connection.execute(
                insert(ModelProblem),
                [
                    {"worker": worker, "phase": phase, "model": model, "message": message}
                    for model, message in problems.items()
                ],
            )
