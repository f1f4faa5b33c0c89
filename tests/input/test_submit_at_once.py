from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

KILLED = 20
"""How often a submission is killed at a moment of chance."""
LINES = 3_000
WRITING_S = 0.4
"""Longer than a submission takes from its connection to its end."""
SEED = 20250613


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A file that takes a while to submit."""
    file = tmp_path / "large.jsonl"
    lines = (json.dumps({"prompt": f"a cat, {i}", "seed": i}) for i in range(LINES))
    file.write_text("\n".join(lines))
    return file


def start(file: Path, database_url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ddit_batch.cli", "submit", str(file)],
        env={**os.environ, "DDIT_DATABASE_URL": database_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def counts(engine: Engine) -> tuple[int, int, int]:
    """Batches, jobs that they should have, jobs that there are."""
    query = "SELECT count(*), coalesce(sum(total), 0), (SELECT count(*) FROM jobs) FROM batches"
    with engine.connect() as connection:
        batches, total, jobs = connection.execute(text(query)).one()
        return int(batches), int(total), int(jobs)


def test_two_processes_that_submit_one_file_at_once_give_one_batch(
    large_file: Path, database_url: str, engine: Engine
) -> None:
    """One of them makes the batch, the others find it."""
    processes = [start(large_file, database_url) for _ in range(3)]

    ends = [process.communicate(timeout=120) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert len({stdout for stdout, _ in ends}) == 1
    assert sum("had been submitted before" in stderr for _, stderr in ends) == 2
    assert counts(engine) == (1, LINES, LINES)


def test_a_submission_that_is_killed_leaves_the_whole_batch_or_nothing(
    large_file: Path, database_url: str, engine: Engine
) -> None:
    """Whenever the process dies, there is no half batch, and the next one makes it whole."""
    moments = random.Random(SEED)
    outcomes = []

    for _ in range(KILLED):
        forget(engine)
        process = start(large_file, database_url)
        wait_until(engine, connected=True)  # before that it has written nothing
        time.sleep(moments.uniform(0, WRITING_S))
        process.kill()
        process.communicate(timeout=120)
        wait_until(engine, connected=False)
        outcomes.append(counts(engine))

    assert set(outcomes) <= {(0, 0, 0), (1, LINES, LINES)}
    process = start(large_file, database_url)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert counts(engine) == (1, LINES, LINES)


def forget(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE batches CASCADE"))


def wait_until(engine: Engine, *, connected: bool) -> None:
    """Wait until Postgres has a connection besides this one, or none."""
    query = (
        "SELECT count(*) > 0 FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 60.0
    with engine.connect() as connection:
        while connection.scalar(text(query)) is not connected:
            assert time.monotonic() < deadline, f"connected is not {connected}"
            connection.rollback()
            time.sleep(0.002)
