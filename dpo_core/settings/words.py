"""What a setting may be, and what was given, in words: the same on nodes, in files and on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_LONGEST = 60
_OPTIONS = 8
"""The most options that are listed."""


def in_words(value: Any) -> str:
    """A value as it was given, shortened to 60 characters; None is "empty"."""
    if value is None:
        return "empty"
    said = repr(value) if isinstance(value, (str, int, float, bool, list, tuple, dict)) else f"a {type(value).__name__}"
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."


def one_of(options: Sequence[Any], value: Any = None, near: Sequence[str] = ()) -> str:
    """ "one of a, b, c"; of many options, those `near` the value first, and how many more there are."""
    listed = list(dict.fromkeys([*near, *map(str, options)]))[:_OPTIONS]
    more = len(options) - len(listed)
    return f"one of {', '.join(listed)}" + (f" and {more} more" if more > 0 else "")


def requirement(field: FieldInfo, more: str = "") -> str:
    """What the values of a field are: "a whole number from 1 to 1000"; `more` is put behind it."""
    kind = kind_of(field)
    if get_origin(kind) is Literal:
        return one_of(get_args(kind)) + more
    if kind in (int, float):
        return _number(field, "whole number" if kind is int else "number") + more
    names = {bool: "true or false", str: "text"}
    if get_origin(kind) is tuple:
        return f"a list of numbers{more}"
    return names.get(kind, f"a {getattr(kind, '__name__', 'value').lower()}") + more


def _number(field: FieldInfo, noun: str) -> str:
    """ "a whole number from 64 to 4096 that 8 divides"."""
    found = _constraints(field.metadata)
    low = next((f"{word} {found[n]:g}" for n, word in (("ge", "from"), ("gt", "above")) if n in found), "")
    if "lt" in found and isinstance(found["lt"], int) and noun == "whole number":
        found["le"] = found.pop("lt") - 1
    word = "to" if low.startswith("from") else "up to"
    high = f"{word} {plain(found['le'])}" if "le" in found else f"below {found['lt']:g}" if "lt" in found else ""
    of = f"that {found['multiple_of']} divides" if "multiple_of" in found else ""
    return " ".join(filter(None, (f"a {noun}", low, high, of)))


def _constraints(metadata: Iterable[Any]) -> dict[str, Any]:
    names = ("ge", "gt", "le", "lt", "multiple_of")
    found: Mapping[str, Any] = {n: getattr(m, n) for m in metadata for n in names if getattr(m, n, None) is not None}
    return dict(found)


def plain(number: float) -> str:
    """A limit: whole numbers in full."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def kind_of(field: FieldInfo) -> Any:
    """The type of the field, without None."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not NoneType)
    return kind
