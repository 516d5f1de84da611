"""What all settings share, and how a setting stands on ComfyUI's nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ..errors import UserError
from .words import in_words, requirement

UNSET = object()
"""Not given, where None is a value."""


Kind = TypeVar("Kind", bound="Settings")


class Settings(BaseModel):
    """Frozen; unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Widget:
    """Marks a field of Settings, in Annotated, that is a widget too.

    The widget's default, range, options and tooltip are those of the field.
    """

    name: str | None = None
    """The widget's name. None: the field's."""
    since: int = 0
    """When the widget was added. 0: in the first version, and required.

    Later widgets are optional and stand last, sorted by this number, because saved graphs store values in the order of
    the widgets. A new widget takes the highest number so far plus one.
    """
    before: Any = UNSET
    """Value for a graph from before the widget, where that is not the default."""
    default: Any = UNSET
    """Default on the node, where it is not the field's."""
    off: Any = UNSET
    """Widget value that means None."""
    least: float | None = None
    """Smallest value on the node, where the field's range excludes its end, or is wider."""
    most: float | None = None
    """Largest value on the node, where the field's range is wider."""
    step: float | None = None
    """What one click adds. None: 1, or the field's multiple."""
    advanced: bool = False
    """Whether it is hidden until advanced inputs are asked for, while it has its default and no link."""
    used_with: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(another widget, its values with which this one has an effect); with other values it is hidden.

    "*" at the start of a value stands for any text.
    """
    alone: bool = False
    """Whether the setting is refused beside other values of `used_with`: there the hidden widget counts as unset."""


def widget_fields(kind: type[Settings]) -> Iterator[tuple[str, FieldInfo, Widget]]:
    """The fields of `kind` that are widgets, in the order of the class: (field's name, field, its mark)."""
    for name, field in kind.model_fields.items():
        mark = next((m for m in field.metadata if isinstance(m, Widget)), None)
        if mark is not None:
            yield name, field, mark


def from_widgets(kind: type[Settings], values: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Arguments of `kind` from a node's widgets, with `more` put over them.

    A widget that `values` lacks, or that is None there, counts as in a graph from before it was there; so does one
    that is hidden and would be refused.
    """
    given = {}
    for name, _, mark in widget_fields(kind):
        value = values.get(mark.name or name)
        if mark.alone and any(values.get(other, used[0]) not in used for other, used in mark.used_with):
            value = None
        if value is None:
            value = mark.before
        if value is not UNSET:
            given[name] = None if mark.off is not UNSET and value == mark.off else value
    return given | more


def settings_of_widgets(kind: type[Kind], values: Mapping[str, Any], **more: Any) -> Kind:
    """The settings that a node's widgets say, with `more` put over them (see `from_widgets`).

    Raises UserError that names each wrong widget and its value.
    """
    given = from_widgets(kind, values, **more)
    marks = {name: (field, mark) for name, field, mark in widget_fields(kind)}
    # pydantic takes true for 1.
    wrong = [_sentence(name, given[name], *marks[name]) for name in marks if _not_a_number(marks[name][0], given, name)]
    if wrong:
        raise UserError(" ".join(wrong))
    try:
        return kind(**given)
    except ValidationError as error:
        raise UserError(" ".join(_wrong(kind, problem, marks) for problem in error.errors())) from error


def _not_a_number(field: FieldInfo, given: Mapping[str, Any], name: str) -> bool:
    return isinstance(given.get(name), bool) and requirement(field).startswith(("a number", "a whole number"))


def _wrong(kind: type[Settings], problem: Any, marks: Mapping[str, tuple[FieldInfo, Widget]]) -> str:
    """One sentence on a wrong setting, under its widget's name."""
    own = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"{own}."
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"{name} is not a setting of {kind.__name__}."
    field, mark = marks.get(name, (kind.model_fields[name], Widget()))
    if problem["type"] == "value_error":
        return f"{mark.name or name} is {in_words(problem['input'])}: {own}."
    return _sentence(name, problem["input"], field, mark)


def _sentence(name: str, value: Any, field: FieldInfo, mark: Widget) -> str:
    auto = f", or {mark.off} for auto" if mark.off is not UNSET and mark.default == mark.off else ""
    return f"{mark.name or name} is {in_words(value)}: it must be {requirement(field, auto)}."
