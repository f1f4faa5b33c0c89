"""The parts of ``deploy.md`` and ``metrics.md`` that the code can produce."""

from __future__ import annotations

from enum import Enum

from fields_table import fields_table
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from ddit_batch.cluster_file import ClusterFile
from ddit_batch.config import Settings
from ddit_batch.environment import variable
from ddit_batch.metrics import SchedulerMetrics

_NO_DEFAULT = {"host": "this machine's host name"}


def settings_table() -> str:
    """Every setting with its variable, its default and its docstring."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _NO_DEFAULT.get(name) or _in_words(field.default)
        text = " ".join((field.description or "").split()).replace("``", "`")
        rows.append(f"| `{variable(name)}` | {default} | {text} |")
    return "\n".join(rows)


def _in_words(default: object) -> str:
    assert default is not PydanticUndefined, "a setting without a default has it in _NO_DEFAULT"
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return "" if default is None or default == "" else f"`{default}`"


def metrics_table() -> str:
    """Every metric with its type, its labels and its help text."""
    rows = ["| metric | type | labels | |", "|---|---|---|---|"]
    for metric in SchedulerMetrics().descriptions:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |")
    return "\n".join(rows)


def cluster_table() -> str:
    """Every field of a cluster file with its docstring."""
    return fields_table(ClusterFile)


PARTS = {
    "settings": settings_table,
    "metrics": metrics_table,
    "cluster file": cluster_table,
}
