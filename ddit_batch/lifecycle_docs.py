"""The life of a job for ``docs/states.md``: a diagram and tables in the code's own words.

The moves are those of ``lifecycle.TRANSITIONS``, the paragraphs are the docstrings below the
members of ``JobState`` and ``Trigger``: one source each. Pure: gives text, writes nothing.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from enum import StrEnum

from ddit_batch.job import FINAL_STATES, HELD_STATES, LIVE_STATES, PHASE_OF, JobState
from ddit_batch.lifecycle import TRANSITIONS, Trigger


def state_diagram() -> str:
    """The transition table as a Mermaid state diagram.

    A trigger that leads from every live state to the same one is drawn once, from "any live state".
    """
    everywhere = {
        trigger: target
        for trigger in Trigger
        if len(targets := {to for (_, t), to in TRANSITIONS.items() if t is trigger}) == 1
        and {state for state, t in TRANSITIONS if t is trigger} == LIVE_STATES
        for target in targets
    }
    lines = ["stateDiagram-v2", '    state "any live state" as any', "    [*] --> queued: submit"]
    for state in JobState:
        for target in JobState:
            triggers = [
                trigger
                for trigger in Trigger
                if TRANSITIONS.get((state, trigger)) is target and trigger not in everywhere
            ]
            if triggers:
                lines.append(f"    {state} --> {target}: {_listed(triggers)}")
    lines += [f"    any --> {target}: {trigger}" for trigger, target in everywhere.items()]
    lines += [f"    {state} --> [*]" for state in JobState if state in FINAL_STATES]
    return "```mermaid\n" + "\n".join(lines) + "\n```"


def state_table() -> str:
    """What each state is: kind, phase, and its paragraph."""
    about = member_docs(JobState)
    rows = ["| state | kind | phase | |", "|---|---|---|---|"]
    for state in JobState:
        kind = "final" if state in FINAL_STATES else "held" if state in HELD_STATES else "waiting"
        rows.append(f"| `{state}` | {kind} | {PHASE_OF.get(state, '')} | {about[state]} |")
    return "\n".join(rows)


def trigger_table() -> str:
    """What each trigger means and moves."""
    about = member_docs(Trigger)
    rows = ["| trigger | | moves |", "|---|---|---|"]
    for trigger in Trigger:
        moves = [(state, to) for (state, t), to in TRANSITIONS.items() if t is trigger]
        if {state for state, _ in moves} == LIVE_STATES:
            words = f"any live state → {_listed(sorted({to for _, to in moves}))}"
        else:
            words = "<br>".join(f"{state} → {to}" for state, to in moves)
        rows.append(f"| `{trigger}` | {about[trigger]} | {words} |")
    return "\n".join(rows)


def member_docs(enum: type[StrEnum]) -> dict[StrEnum, str]:
    """The docstring below each member of *enum*, as one line of Markdown."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(enum))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[StrEnum, str] = {}
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        match member, below:
            case (
                ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(paragraph))),
            ):
                found[enum[name]] = " ".join(paragraph.replace("``", "`").split())
            case _:
                pass
    return found


def _listed(words: Iterable[StrEnum]) -> str:
    return ", ".join(words)
