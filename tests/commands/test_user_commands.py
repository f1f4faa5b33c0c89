"""What users see of a batch that has ended in part: results, cancel, retry, sql, status, doctor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from finished_batch import three_jobs
from sqlalchemy import Engine, text

from ddit_batch.cli import main
from ddit_batch.db.model_problems import record_model_problems
from ddit_batch.db.scheduler_store import SchedulerStore, begin_term
from ddit_batch.db.status import one_batch
from ddit_batch.job import BatchId, JobState, Phase, WorkerName
from ddit_batch.scheduler.service import LEADER_LOCK


@pytest.fixture
def batch(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> BatchId:
    """Three jobs: succeeded, failed, queued; commands find their database."""
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    return three_jobs(engine)


def ddit(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_results_are_lines_of_the_openai_batch_output(batch: BatchId) -> None:
    """Each finished job is one line: a response or an error, found by its custom_id."""
    done = ddit("results", batch)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 0
    assert [set(line) for line in lines] == [{"id", "custom_id", "response", "error"}] * 2
    good, bad = lines
    assert (good["custom_id"], good["error"]) == ("clip-1", None)
    assert good["response"]["status_code"] == 200
    assert good["response"]["body"]["file"] == "clip-1.mp4"
    assert good["response"]["body"]["size"] == "96x64"
    assert good["response"]["body"]["seed"] == 2**32 - 1
    assert (bad["custom_id"], bad["response"]) == ("clip-2", None)
    advice = bad["error"].pop("advice")
    assert bad["error"] == {"code": "out_of_memory", "message": "too large: use a smaller size"}
    assert advice.startswith("Use a smaller size or fewer frames")


def test_results_go_into_two_files(batch: BatchId, tmp_path: Path) -> None:
    """Successes and failures are kept apart."""
    done = ddit("results", batch, "--out", str(tmp_path))

    assert done.exit_code == 0
    for name, custom_id in (("results.jsonl", "clip-1"), ("errors.jsonl", "clip-2")):
        (line,) = (tmp_path / name).read_text().splitlines()
        assert json.loads(line)["custom_id"] == custom_id


def test_status_of_a_batch_says_what_failed_and_what_to_do(batch: BatchId) -> None:
    """Each cause once, with its number of jobs, an example and advice; in JSON as well."""
    shown, as_json = ddit("status", batch), ddit("status", batch, "--json")

    assert "1 job failed: out_of_memory: too large: use a smaller size\n" in shown.stdout
    assert "  Use a smaller size or fewer frames" in shown.stdout
    (cause,) = json.loads(as_json.stdout)["causes"]
    assert (cause["code"], cause["jobs"]) == ("out_of_memory", 1)
    assert cause["advice"].startswith("Use a smaller size")


def test_status_of_a_failed_job_gives_advice(batch: BatchId) -> None:
    """Beside the code and the message."""
    done = ddit("status", f"{batch}-000002", "--json")

    story = json.loads(done.stdout)
    assert story["failure_code"] == "out_of_memory"
    assert story["advice"].startswith("Use a smaller size")


def test_cancel_ends_what_waits_and_leaves_what_has_ended(batch: BatchId, engine: Engine) -> None:
    """The one waiting job is cancelled at once; cancelling again finds nothing."""
    first, second = ddit("cancel", batch), ddit("cancel", batch)

    assert (first.exit_code, first.stderr) == (0, "1 jobs to cancel\n")
    assert second.stderr == "0 jobs to cancel\n"
    counts = one_batch(engine, batch).jobs
    assert counts == {JobState.SUCCEEDED: 1, JobState.FAILED: 1, JobState.CANCELLED: 1}


def test_batch_is_paused_and_resumed(batch: BatchId, engine: Engine) -> None:
    """`ddit status` says so in between; neither twice is an error."""
    said = [ddit("pause", batch), ddit("pause", batch)]
    paused, as_json = ddit("status", batch).stdout, json.loads(ddit("status", "--json").stdout)
    job = json.loads(ddit("status", f"{batch}-000003", "--json").stdout)
    said += [ddit("resume", batch), ddit("resume", batch)]

    assert [done.exit_code for done in said] == [0, 0, 0, 0]
    words = ["1 jobs paused\n", "0 jobs paused\n", "1 jobs go on\n", "0 jobs go on\n"]
    assert [done.stderr for done in said] == words
    assert "paused" in [line.split()[-1] for line in paused.splitlines() if line.strip()]
    assert as_json["paused_at"] is not None
    assert job["waiting_for"] == "batch_paused"
    assert one_batch(engine, batch).paused_at is None
    assert "paused" not in ddit("status", batch).stdout


def test_retry_takes_up_what_failed_and_nothing_else(batch: BatchId, engine: Engine) -> None:
    """The failed job waits again; the succeeded one stays."""
    done = ddit("retry", batch)

    assert (done.exit_code, done.stderr) == (0, "1 jobs to try again\n")
    assert one_batch(engine, batch).jobs == {JobState.SUCCEEDED: 1, JobState.QUEUED: 2}


@pytest.mark.parametrize(
    "command", ["results", "cancel", "retry", "pause", "resume", "status", "watch"]
)
def test_unknown_id_is_named_with_the_way_to_the_known_ones(batch: BatchId, command: str) -> None:
    """Exit 1, one sentence, no traceback."""
    del batch
    done = ddit(command, "b0000000000")

    assert done.exit_code == 1
    assert "b0000000000" in done.stderr
    assert "`ddit status`" in done.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["--json"], '{"custom_id": "clip-2"}\n'), (["--csv"], "custom_id\nclip-2\n")],
)
def test_sql_answers_in_the_form_that_is_asked_for(
    batch: BatchId, flags: list[str], expected: str
) -> None:
    """Rows of a view as JSON lines or CSV."""
    del batch
    done = ddit("sql", "SELECT custom_id FROM job_status WHERE state = 'failed'", *flags)

    assert (done.exit_code, done.stdout.replace("\r\n", "\n")) == (0, expected)


@pytest.mark.parametrize("query", ["DELETE FROM jobs", "SELECT * FROM jobs", "SELEC 1"])
def test_sql_refuses_what_is_not_a_reading_of_a_view(batch: BatchId, query: str) -> None:
    """Postgres' own sentence, no traceback, and nothing changed."""
    del batch
    done = ddit("sql", query)

    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_status_of_a_job_tells_its_story(batch: BatchId) -> None:
    """Facts, events and segments of one job."""
    done = ddit("status", f"{batch}-000001", "--json")

    story = json.loads(done.stdout)
    assert (done.exit_code, story["state"]) == (0, "succeeded")
    states = [event["to_state"] for event in story["events"]]
    assert states == ["encoding", "encoded", "denoising", "denoised", "decoding", "succeeded"]
    assert [segment["to_step"] for segment in story["segments"]] == [4]
    assert ddit("status", f"{batch}-000001").exit_code == 0


def test_status_lists_batches_with_their_counts(batch: BatchId) -> None:
    """A line for each batch, as a table and as JSON."""
    listed = json.loads(ddit("status", "--json").stdout)

    assert (listed["batch_id"], listed["succeeded"], listed["queued"]) == (batch, 1, 1)
    assert batch in ddit("status").stdout


def test_watch_of_a_cancelled_batch_ends_with_the_batch(batch: BatchId) -> None:
    """It returns at once when nothing is left to do, with 1 because not all succeeded."""
    ddit("cancel", batch)

    done = ddit("watch", batch)

    assert done.exit_code == 1
    assert "3/3 done" in done.stderr


def test_doctor_says_what_is_bad_and_how_to_mend_it(batch: BatchId) -> None:
    """The database is fine; there is no broker address, which is bad and has a cure."""
    del batch
    done = ddit("doctor", "--json")

    findings = {found["what"]: found for found in map(json.loads, done.stdout.splitlines())}
    assert done.exit_code == 1
    assert findings["database"]["verdict"] == "ok"
    assert findings["dit workers"]["found"] == "1 online"
    assert findings["broker"] == {
        "what": "broker",
        "verdict": "bad",
        "found": "no address",
        "cure": "set DDIT_BROKER_URL",
    }


def test_doctor_names_models_that_could_not_be_loaded(batch: BatchId, engine: Engine) -> None:
    """Bad if nobody serves them, else worth a note; what a worker says anew replaces the old."""
    del batch
    worker = WorkerName("dit-7@host")
    record_model_problems(engine, worker, Phase.DIT, {"gone": "x"})
    record_model_problems(engine, worker, Phase.DIT, {"tiny-wan": "no room", "big": "no weights"})

    done = ddit("doctor", "--json")

    findings = {found["what"]: found for found in map(json.loads, done.stdout.splitlines())}
    assert findings["model big"]["verdict"] == "bad"
    assert findings["model big"]["found"] == "dit-7@host could not load it: no weights"
    assert findings["model tiny-wan"]["verdict"] == "note"
    assert "model gone" not in findings


def test_status_says_how_long_a_batch_will_take(batch: BatchId, engine: Engine) -> None:
    """As the scheduler estimates, while one leads."""
    term = begin_term(engine, holder="test")
    SchedulerStore(engine, term=term).record_ends({batch: 3725.0})
    assert json.loads(ddit("status", "--json").stdout)["eta_s"] is None

    with engine.connect() as leader:
        leader.execute(text(f"SELECT pg_advisory_lock({LEADER_LOCK})"))
        table = ddit("status").stdout
        (line,) = map(json.loads, ddit("status", "--json").stdout.splitlines())

    assert "1 h 02 min" in table
    assert line["eta_s"] == pytest.approx(3725.0, abs=20.0)
    assert (line["share"], line["deadline"]) == (1.0, None)


@pytest.mark.parametrize("command", ["up", "run p.txt"])
def test_policy_that_is_unknown_is_refused_before_anything_starts(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names of those that are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a cat\n")

    done = ddit(*command.split(), "--policy", "best")

    assert done.exit_code != 0
    assert "policy 'best' is unknown: use one of ddit, dp," in done.stderr
    assert not (tmp_path / ".ddit").exists()
