"""Values as JSON and back, by their types: nothing is lost, and nothing else can be made of it.

Rule 1: the annotations decide. A value is read as what its field says it is, never as what the JSON
claims to be: no class is looked up by a name that stands in the data, but for the members of a
union that the annotation lists.
Rule 2: what has no rule is refused when the type is first seen, not when a value is lost.

Known are numbers, strings, booleans, enums of strings, ``NewType``s, tuples, frozensets,
dataclasses, and unions: one type or None, or several dataclasses, told apart by ``kind``.
A field that the JSON lacks gets its default; one that the class lacks is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_Code = Callable[[Any], Any]
_PLAIN = (str, int, float, bool)
_KIND = "kind"


def encode(kind: type[T], value: T) -> object:
    """*value*, which is a *kind*, as what ``json.dumps`` takes.

    Raises:
        TypeError: There is no rule for *kind*, or for something in it.
    """
    return _codes_of(kind)[0](value)


def decode(kind: type[T], data: object) -> T:
    """The *kind* that *data* stands for, as ``json.loads`` gave it.

    Raises:
        TypeError: There is no rule for *kind*, or *data* has another form.
        ValueError: An enum has no such word.
        KeyError: A union has no such member.
    """
    return cast("T", _codes_of(kind)[1](data))


def _codes_of(kind: Any) -> tuple[_Code, _Code]:
    return _codes(kind)  # a type is hashable, whatever mypy knows of its metaclass


def _same(value: Any) -> Any:
    return value


@cache
def _codes(kind: Any) -> tuple[_Code, _Code]:
    """How a *kind* is written and how it is read."""
    while isinstance(kind, NewType):
        kind = kind.__supertype__
    if kind in _PLAIN:
        return _same, _same
    if get_origin(kind) is not None:
        return _of_parts(get_origin(kind), get_args(kind), kind)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _same, kind  # json writes a member as its word
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _of_dataclass(kind)
    raise _unknown(kind)


def _of_parts(origin: Any, given: tuple[Any, ...], kind: Any) -> tuple[_Code, _Code]:
    """A type with arguments: a collection or a union."""
    if origin in {Union, UnionType}:
        return _of_union(tuple(part for part in given if part is not NoneType), len(given))
    write, read = _codes(given[0])
    if origin is tuple and given[1:] == (Ellipsis,):
        return _each(write), lambda data: tuple(map(read, data))
    if origin is frozenset:
        return lambda value: sorted(map(write, value)), lambda data: frozenset(map(read, data))
    raise _unknown(kind)


def _unknown(kind: Any) -> TypeError:
    return TypeError(f"{kind} has no form in JSON: use a type that {__name__} knows, or add a rule")


def _each(write: _Code) -> _Code:
    return _same if write is _same else lambda value: [write(part) for part in value]


def _of_dataclass(kind: type[Any]) -> tuple[_Code, _Code]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if field.init]
    codes = {name: _codes(hints[name]) for name in names}
    plain = [name for name in names if codes[name][0] is _same]
    others = [(name, codes[name][0]) for name in names if name not in plain]
    # Most fields are plain: to fetch them together takes a third of the time.
    fetch = attrgetter(*plain) if len(plain) > 1 else None
    readers = {name: read for name, (_, read) in codes.items() if read is not _same}

    def write(value: Any) -> dict[str, Any]:
        found = dict(zip(plain, fetch(value), strict=True)) if fetch else {}
        if plain and not fetch:
            found[plain[0]] = getattr(value, plain[0])
        for name, code in others:
            found[name] = code(getattr(value, name))
        return found

    def read(data: Mapping[str, Any]) -> Any:
        return kind(
            **{name: readers[name](v) if name in readers else v for name, v in data.items()}
        )

    return write, read


def _of_union(members: tuple[Any, ...], count: int) -> tuple[_Code, _Code]:
    """One type or None, or several dataclasses."""
    if len(members) == 1:
        write, read = _codes(members[0])
        if write is read is _same:
            return _same, _same
        return (
            lambda value: None if value is None else write(value),
            lambda data: None if data is None else read(data),
        )
    if len(members) < count or not all(map(dataclasses.is_dataclass, members)):
        raise _unknown(members)
    writers = {member: _codes(member)[0] for member in members}
    readers = {member.__name__: _codes(member)[1] for member in members}

    def write_member(value: Any) -> dict[str, Any]:
        return {_KIND: type(value).__name__, **writers[type(value)](value)}

    def read_member(data: Mapping[str, Any]) -> Any:
        fields = dict(data)
        return readers[fields.pop(_KIND)](fields)

    return write_member, read_member
