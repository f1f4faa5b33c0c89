from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from ddit_batch.job import FINAL_STATES, LIVE_STATES, JobState
from ddit_batch.lifecycle import TRANSITIONS, Trigger
from ddit_batch.lifecycle_docs import member_docs, state_diagram, state_table, trigger_table

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


def test_page_is_what_the_code_says() -> None:
    """Who changes the lifecycle makes the page anew."""
    page = PAGE.read_text("utf-8")

    for part in (state_diagram(), state_table(), trigger_table()):
        assert part in page, "docs/states.md is stale: run `python docs/generate.py`"


def test_diagram_has_every_move_and_no_other() -> None:
    """Read back from the picture, the table is the law."""
    drawn: dict[tuple[str, str], str] = {}
    for source, target, triggers in re.findall(r"(\w+) --> (\w+): (.+)", state_diagram()):
        for trigger in triggers.split(", "):
            sources = sorted(LIVE_STATES) if source == "any" else [source]
            drawn |= {(one, trigger): target for one in sources}

    assert drawn == {(str(s), str(t)): str(target) for (s, t), target in TRANSITIONS.items()}


def test_diagram_begins_with_submission_and_ends_in_the_final_states() -> None:
    """The arrows from and to nowhere."""
    assert "    [*] --> queued: submit\n" in state_diagram()
    assert set(re.findall(r"(\w+) --> \[\*\]", state_diagram())) == FINAL_STATES


@pytest.mark.parametrize("enum", [JobState, Trigger])
def test_every_member_has_its_paragraph(enum: type[StrEnum]) -> None:
    """Whoever adds a state or a trigger says what it is."""
    docs = member_docs(enum)

    assert list(docs) == list(enum)
    assert all(paragraph.endswith(".") for paragraph in docs.values())


def test_tables_have_a_row_for_each_state_and_trigger() -> None:
    """One row each, with the moves of each trigger."""
    for member, table in [
        *((state, state_table()) for state in JobState),
        *((trigger, trigger_table()) for trigger in Trigger),
    ]:
        assert len(re.findall(rf"^\| `{member}` \|", table, re.MULTILINE)) == 1
    assert "any live state → failed" in trigger_table()
    assert "denoising → queued<br>decoding → encoded" in trigger_table()
