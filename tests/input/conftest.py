"""The command in a folder of its own, on a database of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from ddit_batch.cli import main
from ddit_batch.db.leases import LeaseStore, WorkerIdentity
from ddit_batch.job import Phase, WorkerName


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: an empty one, from which no database can be reached."""
    monkeypatch.chdir(tmp_path)
    for name in ("DDIT_DATABASE_URL", "DDIT_MODELS_FOLDER", "DDIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def ddit(folder: Path) -> Callable[..., Result]:  # noqa: ARG001 -- it runs there
    """Run ``ddit`` with words, and bytes on standard input if need be."""

    def run(*words: str, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(main, words, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output
        assert "this is a bug" not in result.output
        return result

    return run


@pytest.fixture
def in_database(
    ddit: Callable[..., Result], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run ``ddit`` with words and a database in reach."""
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    return ddit


@pytest.fixture
def add_workers(engine: Engine) -> Callable[..., None]:
    """Bring a worker of each phase online that serves the models named."""

    def add(*models: str, lease_s: float = 60.0) -> None:
        for phase in Phase:
            identity = WorkerIdentity(
                name=WorkerName(f"{phase}-0@host"),
                phase=phase,
                host="host",
                node="host",
                device="cpu",
                pid=1,
                models=models,
                version="1",
            )
            LeaseStore(engine, lease_s=lease_s).register(identity)

    return add
