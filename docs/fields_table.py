"""The fields of a YAML file that pydantic reads, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import get_args

from pydantic import BaseModel


def fields_table(model: type[BaseModel]) -> str:
    """Every field of a YAML file with its docstring, those of its parts after it."""
    rows = ["| field | |", "|---|---|", *_fields(model, "")]
    return "\n".join(rows)


def _fields(model: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        need = "" if field.is_required() else " (optional)"
        text = " ".join((field.description or "").split()).replace("``", "`")
        yield f"| `{path}{name}`{need} | {text} |"
        seen: set[str] = set()
        for inner in _models(field.annotation):  # of a union, what the further ones add
            for row in _fields(inner, f"{path}{name}."):
                key = row.partition(" |")[0]
                if key not in seen:
                    seen.add(key)
                    yield row


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, UnionType) or get_args(annotation):
        for part in get_args(annotation):
            yield from _models(part)
