from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result
from finished_batch import Driver, a_request
from sqlalchemy import Engine

from ddit_batch.cli import main
from ddit_batch.cli.moment import Moment
from ddit_batch.cost_model import CostModel
from ddit_batch.db.submission import job_id, submit
from ddit_batch.db.wishes import pause
from ddit_batch.decision_record import record_of
from ddit_batch.job import JobId, Phase
from ddit_batch.policy import make_policy
from ddit_batch.scheduler.core import Limits, decide

POLICY = make_policy("static", CostModel())
LIMITS = Limits(look_ahead=8, decode_backlog=16, max_worker_losses=5)


class Cluster:
    """Three jobs, a worker of each phase, and a scheduler that records what it decides."""

    def __init__(self, engine: Engine) -> None:
        lines = [a_request(line) for line in (1, 2, 3)]
        made = submit(engine, lines, content_hash="three", name="three.jsonl", out_url=None)
        self.driver = Driver(engine)
        self.jobs = [job_id(made.batch_id, line) for line in (1, 2, 3)]

    def decide(self, *, without: JobId | None = None) -> None:
        """Put a decision on record, on a snapshot that one job may be beyond the window of."""
        world = self.driver.store.snapshot(window=100, may_lose_workers=False)
        world = replace(world, jobs=tuple(job for job in world.jobs if job.job_id != without))
        commands = decide(world, POLICY, LIMITS)
        self.driver.store.decision_log().write(record_of(world, POLICY, LIMITS, commands))

    def encode(self, job: JobId) -> None:
        """Have the job encoded."""
        claims = self.driver.claims
        claims.finish_encode(self.driver.claim(job, Phase.ENCODE), embeddings_key="embeddings/x")


@pytest.fixture
def cluster(engine: Engine, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """In the database that commands find."""
    monkeypatch.setenv("DDIT_DATABASE_URL", database_url)
    return Cluster(engine)


def ddit_explain(*words: str) -> Result:
    return CliRunner().invoke(main, ["explain", *words])


def test_running_job_and_waiting_job_are_explained(cluster: Cluster) -> None:
    """What the one has is what the other waits for."""
    first, second, _ = cluster.jobs
    for job in (first, second):
        cluster.encode(job)
    cluster.driver.claim(first, Phase.DIT)
    cluster.decide()

    runs, waits = ddit_explain(first), ddit_explain(second)

    assert (runs.exit_code, waits.exit_code) == (0, 0)
    assert runs.stdout.startswith(f"{first} (clip-1): denoising, runs, since ")
    assert "dit-0@host denoises it (dop 1): step 0 of 4 is done" in runs.stdout
    assert waits.stdout.startswith(f"{second} (clip-2): encoded, waits, since ")
    assert f"{first} has dit-0@host: step 0 of 4" in waits.stdout
    assert "by static:dop=1." in waits.stdout.splitlines()[-1]


def test_json_has_the_numbers_apart(cluster: Cluster) -> None:
    """Sentences for people, facts for programs."""
    first, *_ = cluster.jobs
    cluster.encode(first)
    cluster.driver.claim(first, Phase.DIT)
    cluster.decide()

    found = json.loads(ddit_explain(first, "--json").stdout)

    assert (found["state"], found["policy"]) == ("denoising", "static:dop=1")
    assert found["facts"]["workers"] == ["dit-0@host"]
    assert found["sentences"]
    assert datetime.fromisoformat(found["decided_at"]).tzinfo is not None


def test_time_in_the_past_gives_the_decision_of_then(cluster: Cluster) -> None:
    """And the state of then; before it came, that it was not there."""
    first, *_ = cluster.jobs
    cluster.decide()
    then = datetime.now(UTC).isoformat()
    cluster.encode(first)
    cluster.driver.claim(first, Phase.DIT)
    cluster.decide()

    past, now = ddit_explain(first, "--at", then), ddit_explain(first)

    assert "queued, waits" in past.stdout
    assert "This decision sent it to the queue encode." in past.stdout
    assert "denoising, runs" in now.stdout
    early = ddit_explain(first, "--at", "2020-01-01T12:00")
    assert early.exit_code == 1
    assert "was not there at 2020-01-01 12:00:00" in early.stderr


def test_job_that_was_given_back_says_why(cluster: Cluster) -> None:
    """The reason of the event, and the segment that it had."""
    first, *_ = cluster.jobs
    cluster.encode(first)
    claim = cluster.driver.claim(first, Phase.DIT)
    cluster.driver.claims.give_back(claim, reason="drain", checkpoint=("at-3", 3))
    cluster.decide()

    said = ddit_explain(first).stdout

    assert "waits again, because its worker gave it back: drain." in said
    assert "it goes on at step 3 of 4" in said
    assert "Steps 0 to 3 at dop 1 on dit-0@host" in said


def test_state_that_is_newer_than_the_decision_is_told(cluster: Cluster) -> None:
    """A decision is a moment of the past."""
    first, *_ = cluster.jobs
    cluster.encode(first)
    cluster.decide()
    cluster.driver.claim(first, Phase.DIT)

    assert "Since that decision it has become denoising." in ddit_explain(first).stdout


def test_ended_jobs_have_their_story(cluster: Cluster) -> None:
    """No decision is needed for it."""
    first, second, third = cluster.jobs
    cluster.driver.succeed(first)
    cluster.driver.fail(second)
    cluster.driver.store.cancel(
        next(
            job
            for job in cluster.driver.store.snapshot(window=9, may_lose_workers=False).jobs
            if job.job_id == third
        )
    )

    good, bad, gone = (ddit_explain(job).stdout for job in cluster.jobs)

    assert "succeeded, since" in good
    assert "Steps 0 to 4 at dop 1 on dit-0@host" in good
    assert ": it was started." in good
    assert "It has failed in encoding: too large: use a smaller size" in bad
    assert "It was cancelled while it was queued." in gone


def test_job_beyond_the_window_is_told_so(cluster: Cluster) -> None:
    """Decisions are on record, and none has looked at it yet."""
    *_, third = cluster.jobs
    cluster.decide(without=third)

    done = ddit_explain(third)

    assert done.exit_code == 0
    assert "The last decisions did not look at it" in done.stdout


@pytest.mark.parametrize("job", ["b0000000000-000001", "nonsense"])
def test_unknown_job_is_named_with_the_way_to_the_known_ones(cluster: Cluster, job: str) -> None:
    """Exit 1, one sentence, no traceback."""
    del cluster
    done = ddit_explain(job)

    assert done.exit_code == 1
    assert job in done.stderr
    assert "`ddit status`" in done.stderr


def test_without_any_record_it_says_what_makes_one(cluster: Cluster) -> None:
    """Nothing has decided yet."""
    done = ddit_explain(cluster.jobs[0])

    assert done.exit_code == 1
    assert "no decision is on record" in done.stderr
    assert "`ddit up`" in done.stderr


@pytest.mark.parametrize(
    ("word", "ago_s"), [("5min", 300.0), ("2h", 7200.0), ("2020-01-02T03:04:05+00:00", None)]
)
def test_times_are_read_as_people_write_them(word: str, ago_s: float | None) -> None:
    """How long ago, or a date with a time."""
    found = Moment().convert(word, None, None)

    assert found.tzinfo is not None
    if ago_s is None:
        assert found == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
    else:
        assert (datetime.now(UTC) - found).total_seconds() == pytest.approx(ago_s, abs=60)


def test_time_of_day_is_of_today_and_nonsense_is_refused() -> None:
    """On the local clock; the message shows the three forms."""
    noon = Moment().convert("12:00:30", None, None)
    now = datetime.now().astimezone()

    assert (noon.date(), noon.hour, noon.second) == (now.date(), 12, 30)
    done = ddit_explain("b0-000001", "--at", "yesterday")
    assert done.exit_code == 2
    assert "write 2026-07-01T12:00, 12:00:30 (today), or 5min (ago)" in done.stderr


def test_paused_job_is_explained_by_the_pause(cluster: Cluster, engine: Engine) -> None:
    """Not by the last decision that saw it, which was before."""
    first, second, _ = cluster.jobs
    cluster.decide()
    cluster.encode(first)
    claim = cluster.driver.claim(first, Phase.DIT)
    pause(engine, [first.partition("-")[0]])
    cluster.decide()

    runs, waits = ddit_explain(first).stdout, ddit_explain(second).stdout
    cluster.driver.claims.give_back(claim, reason="released at a step boundary")
    back = ddit_explain(first).stdout

    assert "dit-0@host gives the job back at its next step boundary" in runs
    for said in (runs, waits, back):
        assert "Its batch is paused; " in said
        assert "`ddit resume " in said
        assert "As decided" not in said
    assert "At step 0 of 4 its batch was paused." in back
