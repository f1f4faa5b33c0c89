from __future__ import annotations

import re
from pathlib import Path

import pytest
from farm import Farm, empty, request, scheduler_running
from sqlalchemy import Engine

from ddit_batch.db.query import View, describe_views, run_query
from ddit_batch.job import JobState, Phase

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text("utf-8")
RECIPES = re.findall(r"### ([^\n]+)\n(?:(?!\n#).)*?```sql\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def lived_in(views_engine: Engine) -> Engine:
    """A database in which everything has happened that the page asks about."""
    empty(views_engine)
    farm = Farm(views_engine)
    workers = {**farm.workers(), Phase.DIT: farm.worker("dit-3@gpu-a", Phase.DIT)}
    done, resumed, failed, cancelled, running, _ = farm.submit(
        *(request(n) for n in range(1, 6)), request(6, custom_id="cat")
    )
    farm.bring(done, JobState.SUCCEEDED, workers)
    claim = farm.claim(failed, workers[Phase.ENCODE])
    farm.claims.fail(claim, code="phase_failed", message="no", retryable=False, max_failures=1)
    farm.ask_to_cancel(cancelled)
    farm.store.cancel(farm.view(cancelled))
    farm.bring(resumed, JobState.DENOISING, workers)
    claim = farm.claims.claim(resumed, Phase.DIT, 1, workers[Phase.DIT])
    farm.claims.save_checkpoint(claim, key="checkpoint", step=2)
    farm.progress(claim, step=5, step_s=1.0)
    farm.claims.give_back(claim, reason="test")
    farm.finish(farm.claim(resumed, workers[Phase.DIT]))
    farm.bring(running, JobState.DENOISING, workers)
    farm.group(farm.claims.claim(running, Phase.DIT, 1, workers[Phase.DIT]), done=False)
    farm.store.withdraw_plan(farm.view(running))
    farm.execute(
        "UPDATE segments SET started_at = current_date + time '11:00', "
        f"ended_at = current_date + time '13:00' WHERE job_id = '{done}'"
    )
    return views_engine


def test_page_has_recipes() -> None:
    """Else the tests below would pass on nothing."""
    assert len(BLOCKS) >= 14
    assert len(RECIPES) >= 12


@pytest.mark.parametrize("query", BLOCKS, ids=lambda query: " ".join(query.split())[:60])
def test_query_of_the_page_runs_and_finds_something(lived_in: Engine, query: str) -> None:
    """As a user would run it: as the reader, with a limit."""
    with scheduler_running(lived_in):
        found = run_query(lived_in, query, limit=100)

    assert found.rows


def answer(lived_in: Engine, question: str) -> list[dict[str, object]]:
    found = run_query(lived_in, dict(RECIPES)[question], limit=100)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_recipe_for_repeated_steps_counts_them(lived_in: Engine) -> None:
    """Given back at step 5 and resumed at 2: three steps are done twice."""
    (row,) = answer(lived_in, "Which jobs were tried again, and how many steps were repeated?")

    assert (row["custom_id"], row["attempts"], row["steps_repeated"]) == ("video-2", 2, 3)


def test_recipe_for_noon_finds_who_worked_then(lived_in: Engine) -> None:
    """The job whose segment covers noon, and nobody who came later."""
    rows = answer(lived_in, "Who used worker dit-3 at noon?")

    assert "video-1" in {row["custom_id"] for row in rows}
    assert {row["phase"] for row in rows} == {"dit"}


def test_recipe_for_failures_tells_the_cause(lived_in: Engine) -> None:
    """Code and message of the job that failed."""
    (row,) = answer(lived_in, "What failed, and why?")

    assert (row["custom_id"], row["failure_code"]) == ("video-3", "phase_failed")


def test_recipe_for_cancelled_prompts_names_them(lived_in: Engine) -> None:
    """With the prompt itself."""
    (row,) = answer(lived_in, "Which prompts were cancelled?")

    assert (row["custom_id"], row["prompt"]) == ("video-4", "a cat on roof 4")


def test_codes_of_waits_are_explained(views_engine: Engine) -> None:
    """The page's table has each code of the view's comment, once, and no other."""
    codes = _column(describe_views(views_engine), "job_status", "waiting_for")

    listed = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Why a job waits")[2], re.MULTILINE)

    assert listed[1 : 1 + len(codes)] == codes


def test_views_of_the_page_are_those_of_the_database(views_engine: Engine) -> None:
    """Every view and column is there with its comment; the page is made anew by a script."""
    for view in describe_views(views_engine):
        assert f"### `{view.name}`\n\n{view.comment}\n" in PAGE
        for column in view.columns:
            row = f"| `{column.name}` | {column.type} | {column.comment} |"
            assert row in PAGE, "docs/sql.md is stale: run `python docs/generate.py`"


def _column(views: tuple[View, ...], view: str, column: str) -> list[str]:
    """The words that a column's comment lists."""
    (comment,) = (c.comment for v in views if v.name == view for c in v.columns if c.name == column)
    return comment.partition("One of ")[2].rstrip(".").split(", ")
