from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from compose_model import ROOT

from ddit_batch.metrics import Description, SchedulerMetrics

FILE = ROOT / "configs" / "grafana" / "ddit-batch.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
METRICS = {described.name: described for described in SchedulerMetrics().descriptions}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FROM_PROMETHEUS = {"instance", "job", "le"}
SUFFIXES = re.compile(r"_(bucket|sum|count)$")
COLUMNS = 24


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel["targets"]]


def metric_of(name: str) -> Description | None:
    """The metric that has a series of that name."""
    if name in METRICS:
        return METRICS[name]
    described = METRICS.get(SUFFIXES.sub("", name))
    return described if described is not None and described.kind == "histogram" else None


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_on_the_dashboard_exists(expression: str) -> None:
    """As the code declares them."""
    names = set(re.findall(r"\bddit_\w+", expression))
    labels = set(re.findall(r"[{,]\s*(\w+)\s*[=!]", expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",")}

    found = {name: metric_of(name) for name in names}

    assert names
    for name, described in found.items():
        assert described is not None, f"no metric {name}"
        assert labels - FROM_PROMETHEUS <= set(described.labels)


def test_every_metric_in_the_docs_exists() -> None:
    """In text, in queries and in alerts."""
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")

    unknown = {name for name in re.findall(r"\bddit_\w+", page) if metric_of(name) is None}

    assert unknown <= {"ddit_batch"}


def test_every_metric_is_on_the_dashboard() -> None:
    """A metric that nobody looks at is not worth its keep."""
    used = {
        SUFFIXES.sub("", name) for text in expressions() for name in re.findall(r"ddit_\w+", text)
    }

    assert used == set(METRICS)


@pytest.mark.parametrize("expression", expressions())
def test_brackets_of_every_expression_close(expression: str) -> None:
    """The least that a parser would say."""
    left = re.sub(r'"[^"]*"', "", expression)
    while (
        shorter := re.sub(r"\([^(){}\[\]]*\)|\{[^(){}\[\]]*\}|\[[^(){}\[\]]*\]", "", left)
    ) != left:
        left = shorter

    assert not re.search(r"[(){}\[\]]", left)


def test_counters_are_read_as_rates_and_gauges_as_they_are() -> None:
    """A counter by itself says when its process began."""
    for expression in expressions():
        for name in re.findall(r"\bddit_\w+", expression):
            described = metric_of(name)
            assert described is not None
            is_rate = (
                re.search(rf"(rate|increase)\({name}\b[^)]*\[[^]]+\]\)", expression) is not None
            )
            assert is_rate == (described.kind != "gauge"), expression


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_panel_is_whole(panel: dict[str, Any]) -> None:
    """Type, title, explanation, place, unit, and the data source that the viewer chose."""
    assert panel["type"] in {"timeseries", "stat"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == SOURCE
    assert panel["fieldConfig"]["defaults"]["unit"]
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= COLUMNS
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(set(references)) == len(references)
    assert all(target["datasource"] == SOURCE for target in panel["targets"])


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    """Grafana would move them, or mix them up."""
    cells = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in PANELS
        for dx, dy in itertools.product(range(panel["gridPos"]["w"]), range(panel["gridPos"]["h"]))
    ]

    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_data_source_is_a_variable() -> None:
    """The dashboard belongs to no particular Grafana."""
    (variable,) = DASHBOARD["templating"]["list"]

    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert "id" not in DASHBOARD
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
