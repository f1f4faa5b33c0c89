"""No words, file or query make a command show a traceback, or a job end in no known state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from finished_batch import three_jobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from ddit_batch.cli import PLACES, main
from ddit_batch.job import BatchId, JobState

LONG = frozenset({"run", "up", "down", "scheduler", "worker", "flower", "profile", "db", "watch"})
"""Commands that start processes, measure for minutes, or wait by their nature."""
COMMANDS = sorted(PLACES.keys() - LONG)

NASTY = [
    *("", " ", "-", "--", "---", "\n", "'", '"', "%", "%s", "{}", "$(true)", "`true`", ";"),
    *(
        "../../etc/passwd",
        "/",
        "~",
        "~0",
        ".",
        "..",
        "\udcff",
        "\u202e",
        "\u00e9" * 300,
        "A" * 5000,
    ),
    *("0", "-1", "1", "64", "1e400", "nan", "inf", "-inf", "1_000", "0x10", "99999999999999999999"),
    *("null", "true", "[]", "a=b", "=", "a=", "prompt=x", "fps=x", "2026-01-01", "25:99", "1h"),
    *("ddit", "static", "static:dop=3", "elastic:x=1", "poisson:load=0.5,jobs=5", "at-once:jobs=4"),
    *(
        "poisson:",
        "bursts:load=2,size=-1,jobs=4",
        "hunyuanvideo-h800",
        "tiny-wan",
        "shapes",
        "jsonl",
    ),
    *("DROP TABLE jobs", "SELECT 1; DELETE FROM jobs", "SELECT * FROM job_status", "SELECT 1/0"),
    *("SELECT pg_sleep(0)", "\\copy", "SELECT '\\x00'::bytea", "SELECT NULL::int[]", "SELEC"),
]
FILES = {
    "good.jsonl": b'{"prompt": "a cat"}\n',
    "bad.jsonl": b'{"prompt": 1}\n{"prompt": "a", "custom_id": "../../x"}\n{',
    "bytes.jsonl": b"\xff\xfe\x00",
    "empty.jsonl": b"",
    "line.txt": b"a red ball\n",
    "table.csv": b'prompt,seed\n"a\n',
    "profile.yaml": b"model: [",
}


@dataclass(frozen=True)
class Place:
    """Where the commands run."""

    engine: Engine
    batch: BatchId
    folder: Path


@pytest.fixture
def place(
    engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A database with three jobs, a store and files of every kind; no broker."""
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    monkeypatch.setenv("DDIT_ARTIFACTS_URL", f"file://{tmp_path / 'store'}")
    monkeypatch.setenv("DDIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return Place(engine=engine, batch=three_jobs(engine), folder=tmp_path)


def _options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


@st.composite
def words(draw: st.DrawFn, name: str) -> list[str]:
    """Options of the command with values of any kind, and arguments of any kind, in any order."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    said: list[str] = []
    for option in draw(st.lists(st.sampled_from(_options(command)), max_size=3)):
        said.append(draw(st.sampled_from(option.opts)))
        if not option.is_flag:
            said.append(draw(VALUES))
    return draw(st.permutations([*said, *draw(st.lists(VALUES, max_size=3))]))


VALUES = (
    st.sampled_from(NASTY)
    | st.sampled_from([*FILES, "missing.jsonl", ".", "BATCH", "BATCH-000001", "BATCH-000009"])
    | st.text(st.characters(exclude_characters="\0"), max_size=12)
)
"""No NUL: the system hands none on. A byte that is no UTF-8 arrives as a lone surrogate."""


def _explain(done: Result) -> str:
    return f"exit code {done.exit_code}: {done.output[-2000:]}{done.exception!r}"


@pytest.mark.parametrize("name", COMMANDS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_words_make_a_command_break(place: Place, name: str, data: st.DataObject) -> None:
    """Done, could not be done, or wrong usage; never a traceback, and never 'this is a bug'."""
    said = [word.replace("BATCH", place.batch) for word in data.draw(words(name))]

    done = CliRunner().invoke(main, [name, *said], input="{")

    assert done.exit_code in (0, 1, 2), _explain(done)
    assert done.exception is None or isinstance(done.exception, SystemExit), _explain(done)
    assert "Traceback" not in done.output
    assert "this is a bug" not in done.output, _explain(done)
    with place.engine.connect() as connection:
        states = set(connection.scalars(text("SELECT DISTINCT state FROM jobs")))
    assert states <= set(JobState)
    assert states, "no command deletes jobs"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_file_makes_submit_break(place: Place, content: bytes) -> None:
    """What cannot be read as prompts is answered line by line, with exit code 2."""
    (place.folder / "any.jsonl").write_bytes(content)

    done = CliRunner().invoke(main, ["submit", "any.jsonl", "--allow-unserved"])

    assert done.exit_code in (0, 1, 2), _explain(done)
    assert "Traceback" not in done.output
    assert "this is a bug" not in done.output, _explain(done)
