"""The table of causes: complete, and the same wherever it stands."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from ddit_batch.causes import ABOUT, Cause, advice_for, cause_table


def test_every_cause_is_explained_with_advice() -> None:
    """In sentences."""
    assert set(ABOUT) == set(Cause)
    for about in ABOUT.values():
        assert about.meaning.endswith(".")
        assert about.advice.endswith(".")
        assert about.tries


@pytest.mark.parametrize("code", ["oops", "", None])
def test_unknown_code_has_no_advice(code: str | None) -> None:
    """Another release may have written it."""
    assert advice_for(code) is None


def test_database_explains_the_same_causes_in_the_same_words(engine: Engine) -> None:
    """The view was made by a migration, which cannot ask the package."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT code, meaning, advice FROM failure_causes"))
        rows = [tuple(row) for row in found]

    assert rows == [(str(cause), a.meaning, a.advice) for cause, a in ABOUT.items()]


def test_page_lists_every_cause() -> None:
    """One row each."""
    table = cause_table()

    assert [row.split("`")[1] for row in table.splitlines()[2:]] == list(map(str, Cause))
