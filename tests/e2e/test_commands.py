from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e_processes import ddit, processes_of
from e2e_prompts import write_prompts

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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home for a cluster that stays."""
    return tmp_path / "home"


def test_cluster_that_stays(home: Path) -> None:
    """`up`, `submit -` twice, `status`, `down`, and `down` once more."""
    line = write_prompts(home.with_name("prompts.jsonl"), "fox").read_text()

    up = ddit(home, "up", "--no-flower")
    first = ddit(home, "submit", "-", "--out", "videos", text=line)
    again = ddit(home, "submit", "-", "--out", "videos", text=line)
    status = ddit(home, "status", "--json")
    down = ddit(home, "down")
    down_again = ddit(home, "down")

    assert [c.returncode for c in (up, first, again, status, down, down_again)] == [0] * 6
    assert f"cluster up in {home}" in up.stderr
    assert "1 jobs, submitted" in first.stderr
    assert again.stdout == first.stdout
    assert "submitted before" in again.stderr
    summary = json.loads(status.stdout)
    assert summary["batch_id"] == first.stdout.strip()
    assert summary["total"] == 1
    assert "cluster down" in down.stderr
    assert "no cluster runs" in down_again.stderr
    assert processes_of(home) == []
