from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine, text

from ddit_batch.cli import own_cluster
from ddit_batch.cli.prompts import SHOWN_PROBLEMS
from ddit_batch.embedded.home import ClusterState

Ddit = Callable[..., Result]

MIXED = """\
{"custom_id": "good-1", "prompt": "a cat"}
{"custom_id": "bad-1", "prompt": "a dog", "seed": -1, "fps": 0}
{"custom_id": "good-2", "prompt": "a bird"}
{"custom_id": "bad-2", "promt": "a fish"}
not JSON
"""


def jobs(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT custom_id FROM jobs ORDER BY seq")))


def batches(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM batches ORDER BY id")))


# All or nothing


def test_a_file_with_a_bad_line_is_refused_as_a_whole(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """Every problem is told at once, nothing is stored, and the exit code says wrong input."""
    (folder / "p.jsonl").write_text(MIXED)

    result = in_database("submit", "p.jsonl")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: nothing was submitted:",
        "p.jsonl:2: seed: -1: must be 0 to 4294967295: use 0",
        "p.jsonl:2: fps: 0: must be 1 to 120: use 1",
        "p.jsonl:4: promt: is no field of a line: did you mean prompt?",
        'p.jsonl:4: prompt: is missing: add "prompt": "..."',
        'p.jsonl:5: is not JSON: Expecting value (column 1): write {"prompt": "not JSON"}',
        "(good lines: 2; --skip-invalid submits those alone)",
    ]
    assert jobs(engine) == []


def test_more_problems_than_fit_are_counted(folder: Path, ddit: Ddit) -> None:
    """The terminal is not flooded."""
    (folder / "p.jsonl").write_text("?\n" * (SHOWN_PROBLEMS + 7))

    lines = ddit("submit", "p.jsonl").stderr.splitlines()

    assert len(lines) == 1 + SHOWN_PROBLEMS + 1
    assert lines[-1] == "... and 7 more"


@pytest.mark.parametrize("name", ["p.jsonl", "p.txt", "p.csv", "-"])
def test_standard_input_and_every_extension_are_read(
    folder: Path, in_database: Ddit, engine: Engine, name: str
) -> None:
    """The file's extension says how it is read; piped lines say it themselves."""
    data = {"p.jsonl": b'{"prompt": "a cat"}', "p.txt": b"a cat", "p.csv": b"prompt\na cat"}
    content = data.get(name, b"a cat\n")
    if name != "-":
        (folder / name).write_bytes(content)

    result = in_database("submit", name, stdin=content if name == "-" else None)

    assert result.exit_code == 0, result.stderr
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT request->>'prompt', name FROM jobs JOIN batches b ON b.id = batch_id")
        ).one()
    assert tuple(row) == ("a cat", "stdin" if name == "-" else name)


def test_the_user_may_name_the_format(folder: Path, ddit: Ddit) -> None:
    """A table in a file called .txt is no list of prompts."""
    (folder / "table.txt").write_text("prompt,seed\na cat,7\na dog,8\n")

    as_text = ddit("submit", "--dry-run", "table.txt", "--json")
    as_table = ddit("submit", "--dry-run", "table.txt", "--json", "--format", "csv")

    assert (json.loads(as_text.stdout)["jobs"], json.loads(as_table.stdout)["jobs"]) == (3, 2)


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("missing.jsonl",), 2, "missing.jsonl: cannot be read: No such file or directory"),
        ((".",), 2, ".: cannot be read: Is a directory: check the path"),
        (("p.txt", "--set", "fps=0"), 2, "--set fps=0: must be 1 to 120: use 1"),
        (("p.txt", "--set", "fps"), 2, "'fps' is not of the form key=value"),
        (("p.txt", "--model", "sora"), 1, "model 'sora' is unknown: name one of shapes, tiny-wan"),
        (("p.txt", "--format", "xml"), 2, "'xml' is not one of"),
        (("p.txt", "--errors", "e"), 2, "--errors is for --skip-invalid"),
        (("p.txt",), 1, "no cluster runs in"),
    ],
)
def test_wrong_options_are_answered(
    folder: Path, ddit: Ddit, words: tuple[str, ...], code: int, expected: str
) -> None:
    """What is wrong around the file is answered like what is wrong in it."""
    (folder / "p.txt").write_text("a cat\n")

    result = ddit("submit", *words)

    assert result.exit_code == code
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_file_name_that_is_not_utf8_is_no_trouble(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """File systems hold names that a database does not."""
    name = b"caf\xe9.txt".decode(errors="surrogateescape")
    (folder / name).write_text("a cat\n")

    assert in_database("submit", name).exit_code == 0
    refused = in_database("submit", name, "--out", name.removesuffix(".txt"))

    assert refused.exit_code == 2
    assert "is not UTF-8: choose another name" in refused.stderr
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT name FROM batches")) == "caf\ufffd.txt"


# Leaving bad lines out


def test_skip_invalid_submits_the_good_lines_and_keeps_the_others(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """The user asked for it, so it is a success; what is left out is told and kept."""
    (folder / "p.jsonl").write_text(MIXED)

    result = in_database("submit", "p.jsonl", "--skip-invalid")

    assert result.exit_code == 0
    assert jobs(engine) == ["good-1", "good-2"]
    assert result.stdout.split() == batches(engine)
    assert "p.jsonl:2: fps: 0: must be 1 to 120: use 1" in result.stderr
    assert "lines left out: 3; see errors.jsonl" in result.stderr
    lines = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert lines == [
        {
            "id": "line-000002",
            "custom_id": "bad-1",
            "response": None,
            "error": {
                "code": "invalid_value",
                "message": (
                    "p.jsonl:2: seed: -1: must be 0 to 4294967295: use 0; "
                    "p.jsonl:2: fps: 0: must be 1 to 120: use 1"
                ),
                "line": 2,
                "param": "seed",
            },
        },
        {
            "id": "line-000004",
            "custom_id": "bad-2",
            "response": None,
            "error": {
                "code": "unknown_parameter",
                "message": (
                    "p.jsonl:4: promt: is no field of a line: did you mean prompt?; "
                    'p.jsonl:4: prompt: is missing: add "prompt": "..."'
                ),
                "line": 4,
                "param": "promt",
            },
        },
        {
            "id": "line-000005",
            "custom_id": None,
            "response": None,
            "error": {
                "code": "invalid_line",
                "message": (
                    "p.jsonl:5: is not JSON: Expecting value (column 1): "
                    'write {"prompt": "not JSON"}'
                ),
                "line": 5,
                "param": None,
            },
        },
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "errors.jsonl"),
        (("--out", "videos"), "videos/errors.jsonl"),
        (("--errors", "a/b.jsonl", "--out", "videos"), "a/b.jsonl"),
    ],
)
def test_the_errors_file_is_where_the_user_looks(
    folder: Path, in_database: Ddit, words: tuple[str, ...], expected: str
) -> None:
    """Named by the user, or beside the videos, or here."""
    (folder / "p.jsonl").write_text(MIXED)

    result = in_database("submit", "p.jsonl", "--skip-invalid", *words)

    assert result.exit_code == 0
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"p.jsonl", expected}


def test_an_errors_file_that_cannot_be_written_stops_the_submission(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """Lines are not left out without a trace, and the prompts are not written over."""
    (folder / "p.jsonl").write_text(MIXED)

    for errors, expected in (
        ("p.jsonl", "p.jsonl: is the file of prompts itself: choose another place"),
        ("p.jsonl/x", "p.jsonl/x: cannot be written: "),
    ):
        result = in_database("submit", "p.jsonl", "--skip-invalid", "--errors", errors)
        assert result.exit_code == 2
        assert expected in result.stderr
    assert (folder / "p.jsonl").read_text() == MIXED
    assert jobs(engine) == []


def test_a_file_without_bad_lines_leaves_no_errors_file(folder: Path, in_database: Ddit) -> None:
    """Where nothing is wrong, nothing is written."""
    (folder / "p.txt").write_text("a cat\n")

    result = in_database("submit", "p.txt", "--skip-invalid")

    assert result.exit_code == 0
    assert not (folder / "errors.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("p.jsonl", '{"prompt": ""}\n'), ("p.csv", 'prompt\na cat\n"open\n'), ("p.json", "[\n]")],
    ids=["no good line", "an open quote", "another form"],
)
def test_skipping_does_not_save_a_file_without_good_lines_or_in_doubt(
    folder: Path, in_database: Ddit, engine: Engine, name: str, data: str
) -> None:
    """An empty batch, or one of guesses, is not what anybody wants."""
    (folder / name).write_text(data)

    result = in_database("submit", name, "--skip-invalid")

    assert result.exit_code == 2
    assert result.stderr.startswith("Error: nothing was submitted, not even with --skip-invalid:\n")
    assert batches(engine) == []


# Doing it twice


def test_the_same_content_and_options_are_the_same_batch(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """Form does not matter, content and options do, --new forces another."""
    (folder / "p.jsonl").write_text('{"prompt": "a cat", "seed": 1}\n')
    (folder / "q.csv").write_text('prompt,seed,custom_id\r\n"a cat",1,line-000001\r\n')

    first = in_database("submit", "p.jsonl")
    again = in_database("submit", "p.jsonl", "--out", "videos")
    table = in_database("submit", "q.csv")
    options = in_database("submit", "p.jsonl", "--set", "fps=9")
    forced = in_database("submit", "p.jsonl", "--new")

    assert first.stdout == again.stdout == table.stdout
    assert "1 jobs, submitted" in first.stderr
    assert "1 jobs, had been submitted before" in again.stderr
    assert len({first.stdout, options.stdout, forced.stdout}) == 3
    assert len(batches(engine)) == 3


def test_what_is_left_out_does_not_make_another_batch(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """The batch is the good lines: mending nothing and dropping the bad ones is the same."""
    (folder / "p.jsonl").write_text(MIXED)
    good = [line for line in MIXED.splitlines() if "good" in line]
    (folder / "q.jsonl").write_text("\n".join(good))

    with_bad = in_database("submit", "p.jsonl", "--skip-invalid", "--set", "seed=1")
    without = in_database("submit", "q.jsonl", "--set", "seed=1")

    assert with_bad.stdout == without.stdout
    assert len(batches(engine)) == 1


def test_json_says_what_became_of_it(folder: Path, in_database: Ddit) -> None:
    """Scripts need no regular expressions."""
    (folder / "p.jsonl").write_text(MIXED)

    found = json.loads(in_database("submit", "p.jsonl", "--skip-invalid", "--json").stdout)

    assert found.pop("batch_id").startswith("b")
    assert found == {"created": True, "total": 2, "skipped": 3}


# Looking first


def test_a_dry_run_sums_up_without_a_cluster(folder: Path, ddit: Ddit) -> None:
    """Jobs, shapes, models and steps are seen before anything is started."""
    (folder / "p.jsonl").write_text(
        '{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c", "model": "wan2.1-t2v-1.3b"}\n'
    )

    table = ddit("submit", "p.jsonl", "--dry-run")
    found = ddit("submit", "p.jsonl", "--dry-run", "--json")

    assert table.exit_code == 0
    assert "3 jobs, 74 denoising steps; nothing was submitted (--dry-run)" in table.stderr
    rows = [line.replace("│", " ").split() for line in table.stdout.splitlines()]
    assert ["shapes", "64x64x9", "12", "2"] in rows
    assert ["wan2.1-t2v-1.3b", "832x480x81", "50", "1"] in rows
    assert json.loads(found.stdout) == {
        "jobs": 3,
        "skipped": 0,
        "steps": 74,
        "groups": [
            {
                "model": "shapes",
                "height": 64,
                "width": 64,
                "num_frames": 9,
                "num_inference_steps": 12,
                "jobs": 2,
            },
            {
                "model": "wan2.1-t2v-1.3b",
                "height": 480,
                "width": 832,
                "num_frames": 81,
                "num_inference_steps": 50,
                "jobs": 1,
            },
        ],
    }
    assert [path.name for path in folder.iterdir()] == ["p.jsonl"]


def test_a_dry_run_refuses_what_a_submission_would(folder: Path, ddit: Ddit) -> None:
    """A dry run of a bad file fails; one that skips says so, and writes nothing."""
    (folder / "p.jsonl").write_text(MIXED)

    refused = ddit("submit", "p.jsonl", "--dry-run")
    skipping = ddit("submit", "p.jsonl", "--dry-run", "--skip-invalid")

    assert refused.exit_code == 2
    assert skipping.exit_code == 0
    assert "lines that would be left out: 3" in skipping.stderr
    assert not (folder / "errors.jsonl").exists()


# Models that nobody serves


def test_a_model_that_no_worker_serves_is_answered(
    folder: Path, in_database: Ddit, engine: Engine, add_workers: Callable[..., None]
) -> None:
    """Jobs that would wait for ever are not taken by mistake, but on purpose."""
    (folder / "p.jsonl").write_text(
        '{"prompt": "a"}\n'
        '{"prompt": "b", "model": "wan2.1-t2v-14b"}\n'
        '{"prompt": "c", "model": "wan2.1-t2v-14b"}\n'
    )
    add_workers("shapes", "my-wan")

    refused = in_database("submit", "p.jsonl")
    waiting = in_database("submit", "p.jsonl", "--allow-unserved")

    assert refused.exit_code == 2
    assert refused.stderr == (
        "Error: nothing was submitted:\n"
        'p.jsonl:2: model: "wan2.1-t2v-14b": is served by no worker (served: my-wan, shapes), '
        "and 2 of 3 lines ask for it: start a worker that does, or give --allow-unserved to let "
        "its lines wait\n"
    )
    assert waiting.exit_code == 0
    assert len(jobs(engine)) == 3


def test_without_any_worker_a_batch_waits_for_them(
    folder: Path, in_database: Ddit, add_workers: Callable[..., None]
) -> None:
    """A file may be submitted before the workers are started; those that are dead do not count."""
    add_workers("tiny-wan", lease_s=-1.0)
    (folder / "p.txt").write_text("a cat\n")

    result = in_database("submit", "p.txt", "--model", "wan2.1-t2v-14b")

    assert result.exit_code == 0
    assert "no worker is online: the batch waits for one" in result.stderr


@pytest.fixture
def running_cluster(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands find a cluster with this database."""
    state = ClusterState(
        supervisor_pid=1,
        database_url=database_url,
        broker_url="",
        artifacts_url="",
        services={},
        restarts={},
    )
    monkeypatch.setattr(own_cluster, "ready_cluster", lambda _: state)


@pytest.mark.usefixtures("running_cluster")
def test_run_answers_that_the_running_cluster_does_not_serve_the_model(
    folder: Path, ddit: Ddit, engine: Engine, add_workers: Callable[..., None]
) -> None:
    """A run with somebody else's cluster is told at once, not after hours of waiting."""
    add_workers("tiny-wan")
    (folder / "p.jsonl").write_text(MIXED)

    result = ddit("run", "p.jsonl", "--model", "wan2.1-t2v-14b", "--skip-invalid", "--out", "v")

    assert result.exit_code == 2
    assert result.stderr.endswith(
        'p.jsonl:1: model: "wan2.1-t2v-14b": is served by no worker (served: tiny-wan), '
        "and 2 of 2 lines ask for it: `ddit down` stops this cluster; then `ddit run` starts one "
        "that does\n"
    )
    assert len((folder / "v" / "errors.jsonl").read_text().splitlines()) == 3
    assert jobs(engine) == []


# Shares and deadlines


def wishes(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        query = "SELECT share, extract(epoch FROM deadline - created_at)::float8 FROM batches"
        return [tuple(row) for row in connection.execute(text(query))]


def test_a_batch_has_the_share_and_the_deadline_that_were_given(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """And another one when it is submitted with another; the deadline counts from the first."""
    (folder / "p.txt").write_text("a cat\n")

    first = in_database("submit", "p.txt", "--share", "2", "--deadline", "1h30m")
    assert wishes(engine) == [(2.0, 5400.0)]
    again = in_database("submit", "p.txt", "--share", "0.5", "--deadline", "1h30m")

    assert first.stdout == again.stdout
    assert wishes(engine) == [(0.5, 5400.0)]


def test_a_deadline_that_is_past_is_said_and_stands(
    folder: Path, in_database: Ddit, engine: Engine
) -> None:
    """Who repeats a command after its deadline still wants the videos."""
    (folder / "p.txt").write_text("a cat\n")

    result = in_database("submit", "p.txt", "--deadline", "2020-01-01T12:00Z")

    assert result.exit_code == 0
    assert "the deadline 2020-01-01T12:00+00:00 is past" in result.stderr
    ((_, after_s),) = wishes(engine)
    assert float(str(after_s)) < 0


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much", "1e9"])
def test_a_share_that_is_no_weight_is_refused(
    folder: Path, in_database: Ddit, engine: Engine, value: str
) -> None:
    """With what it may be."""
    (folder / "p.txt").write_text("a cat\n")

    result = in_database("submit", "p.txt", "--share", value)

    assert result.exit_code == 2
    assert f"'{value}' is no share: give a number from 0.001 to 1000" in result.stderr
    assert batches(engine) == []


@pytest.mark.parametrize("value", ["soon", "6 hours", "0h", "2020-13-01", ""])
def test_a_deadline_that_is_no_time_is_refused(
    folder: Path, in_database: Ddit, engine: Engine, value: str
) -> None:
    """With both ways to write one."""
    (folder / "p.txt").write_text("a cat\n")

    result = in_database("submit", "p.txt", "--deadline", value)

    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert f"'{value}' is neither a time nor a length of time: write 2027-01-31T18:00" in message
    assert batches(engine) == []
