from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname

import psycopg
from cluster_tools import Cluster
from e2e_processes import assert_nothing_left, ddit, processes_of, wait_until
from e2e_prompts import write_prompts

from ddit_batch.embedded.home import Home, running_cluster

CLUSTER = """
hosts:
- name: {host}
  nodes:
  - {{name: left, devices: [cpu]}}
  - {{name: right, devices: [cpu]}}
  vae: []
- name: elsewhere
"""
BAD_LINES = """\
{"custom_id": "a", "prompt": "a cat", "height": 65}
{"custom_id": "a", "prompt": "a dog", "colour": "red"}
not json
"""


def test_file_with_bad_lines_starts_nothing(tmp_path: Path) -> None:
    """Every problem is listed with its line, the exit code is 2, and no home is made."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(BAD_LINES)
    home = tmp_path / "home"

    done = ddit(home, "run", str(prompts))

    assert done.returncode == 2
    for line in (1, 2, 3):
        assert f"{prompts}:{line}: " in done.stderr
    assert "height: 65" in done.stderr
    assert "colour" in done.stderr
    assert done.stdout == ""
    assert not home.exists()


def test_submit_without_cluster_names_the_commands_that_start_one(tmp_path: Path) -> None:
    """The cure is in the message, and the exit code is 1."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", "fox")

    done = ddit(tmp_path / "home", "submit", str(prompts))

    assert done.returncode == 1
    assert "`ddit up`" in done.stderr
    assert "`ddit run FILE`" in done.stderr


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A home inside a file: one sentence with the path and the option, no traceback."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", "fox")

    done = ddit(prompts / "home", "run", str(prompts), "--out", str(tmp_path / "out"))

    assert done.returncode == 1
    assert f"cannot make the home folder {prompts / 'home'}" in done.stderr
    assert "--home" in done.stderr
    assert "Traceback" not in done.stderr


def test_cluster_goes_up_and_down(tmp_path: Path) -> None:
    """`up` returns once it is up, `down` once it is down, and `down` again says so."""
    home = tmp_path / "home"

    up = ddit(home, "up", "--no-flower")
    found = {process.pid for process in processes_of(home)}
    down = ddit(home, "down")
    assert_nothing_left(home)
    down_again = ddit(home, "down")

    assert (up.returncode, down.returncode, down_again.returncode) == (0, 0, 0)
    assert f"cluster up in {home}" in up.stderr
    assert len(found) >= 7  # supervisor, Postgres, Valkey, scheduler, three workers
    assert "cluster down" in down.stderr
    assert "no cluster runs" in down_again.stderr


def test_cluster_file_says_which_workers_come_up(tmp_path: Path) -> None:
    """Those of this host, each on its node."""
    home, file = tmp_path / "home", tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(host=gethostname()))

    up = ddit(home, "up", "--no-flower", "--cluster", str(file))
    nodes = wait_until(lambda: _nodes(home), "all three workers are there", within_s=90)
    down = ddit(home, "down")
    assert_nothing_left(home)

    assert (up.returncode, down.returncode) == (0, 0)
    assert "workers of this host: 1 encode, 2 dit" in up.stderr
    assert "elsewhere cannot reach this cluster" in up.stderr
    assert nodes == {"dit-0": "left", "dit-1": "right", "encode-0": gethostname()}


def _nodes(home: Path) -> dict[str, str]:
    """The nodes of the workers, once all three of the file are online."""
    state = running_cluster(Home(home))
    assert state is not None
    with psycopg.connect(state.database_url.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT name, node FROM worker_status WHERE state = 'online'")
        names = {name.partition("@")[0]: node for name, node in rows}
    return names if len(names) >= 3 else {}


def test_same_lines_are_the_same_batch(session_cluster: Cluster) -> None:
    """`submit -` prints the batch's id, again the same one, and `status` knows it."""
    home = session_cluster.home.path
    line = write_prompts(home.with_name("once.jsonl"), "fox", prefix="once-").read_text()
    submit = ("submit", "-", "--out", str(home.with_name("once")))

    first = ddit(home, *submit, text=line)
    again = ddit(home, *submit, text=line)
    status = ddit(home, "status", "--json")

    assert (first.returncode, again.returncode, status.returncode) == (0, 0, 0)
    assert "1 jobs, submitted" in first.stderr
    assert again.stdout == first.stdout
    assert "submitted before" in again.stderr
    summaries = [json.loads(text) for text in status.stdout.splitlines()]
    (summary,) = [s for s in summaries if s["batch_id"] == first.stdout.strip()]
    assert summary["total"] == 1
