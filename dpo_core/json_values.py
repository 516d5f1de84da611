"""Dataclasses as plain JSON and back, by pydantic. JSON has no infinity: an open end of an interval is null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

_FINITE = PlainSerializer(lambda value: value if math.isfinite(value) else None, when_used="json")
Low = Annotated[float, BeforeValidator(lambda value: -math.inf if value is None else value), _FINITE]
"""The lower end of an interval; -inf is null in JSON."""
High = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value), _FINITE]
"""The upper end of an interval; inf is null in JSON."""

T = TypeVar("T")


def finite(value: Any) -> Any:
    """The value with None for every float that is NaN or infinite, at any depth of dicts, lists and tuples.

    JSON has no such numbers, and a reader must not take an undefined one for a measured one.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, (list, tuple)) else value


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def to_json(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values: dicts, lists, strings, numbers, None."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_json(kind: type[T], data: Any) -> T:
    """A dataclass from what `to_json` gave; unknown keys are ignored.

    Raises pydantic.ValidationError, which is a ValueError, for a missing or wrong value.
    """
    return _adapter(kind).validate_python(data)
