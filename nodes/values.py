"""Checks the values of a node's widgets before its work: one sentence a wrong value, under the widget's name.

ComfyUI checks constants, but no value that comes by a link, and no combo value on 0.3.64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from numbers import Integral, Real
from typing import Any

from comfy_api.latest import io

from ..dpo_core.errors import UserError
from ..dpo_core.settings.words import in_words, one_of, plain

OWN_WORDS = frozenset({"scorer", "folder"})
"""Combos whose node refuses unknown values itself, with a remedy of its own."""


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """The node, whose `execute` and `validate_inputs` first check the values of its widgets; changed once, in place.

    execute() then raises UserError, and validate_inputs() returns the text, with one sentence for each wrong value.
    """
    if hasattr(node.__dict__["execute"].__func__, "__wrapped__"):
        return node
    _behind(node, "execute", lambda own, cls, values: own(cls, **settled(node, values)))
    if "validate_inputs" in node.__dict__:
        # ComfyUI checks neither range nor options of an input that validate_inputs names.
        def validate(own: Callable, cls: type, values: dict[str, Any]) -> bool | str:
            constants = {name: value for name, value in values.items() if value is not None}  # None: linked, not known
            return wrong_values(node, constants) or own(cls, **values | converted(node, constants))

        _behind(node, "validate_inputs", validate)
    return node


def _behind(node: type[io.ComfyNode], name: str, check: Callable[[Callable, type, dict[str, Any]], Any]) -> None:
    """Put `check` before the classmethod `name`: it gets the method, the class and the values by input."""
    own = node.__dict__[name].__func__
    order = [n for n, p in signature(own).parameters.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD][1:]

    @wraps(own)
    def method(cls, *given: Any, **named: Any) -> Any:
        return check(own, cls, dict(zip(order, given, strict=False)) | named)

    method.__signature__ = signature(own)  # type: ignore[attr-defined]  # ComfyUI reads the names from it
    setattr(node, name, classmethod(method))


def settled(node: type[io.ComfyNode], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, converted; UserError names the wrong ones."""
    if wrong := wrong_values(node, values):
        raise UserError(wrong)
    return converted(node, values)


def converted(node: type[io.ComfyNode], values: Mapping[str, Any]) -> dict[str, Any]:
    """Right values as their widgets' types: 20.0 and "20" as 20 for a whole number."""
    kinds = {i.id: type(i) for i in widgets_of(node)}
    return {name: _as(kinds.get(name), value) for name, value in values.items()}


def wrong_values(node: type[io.ComfyNode], values: Mapping[str, Any]) -> str:
    """What is wrong with the values, one sentence each; "" if nothing is. Other inputs than widgets are left out."""
    inputs = {i.id: i for i in widgets_of(node)}
    return " ".join(
        f"{name} is {in_words(value)}: it must be {wanted}."
        for name, value in values.items()
        if name in inputs and (wanted := _wanted(inputs[name], value))
    )


def widgets_of(node: type[io.ComfyNode]) -> list[io.Input]:
    """The node's inputs that are widgets."""
    return [i for i in node.define_schema().inputs if hasattr(i, "default")]


def _wanted(given: io.Input, value: Any) -> str | None:
    """What the value must be, in words; None where it is right."""
    if value is None and given.optional:  # a graph from before the widget
        return None
    if isinstance(given, io.Boolean.Input):
        return None if isinstance(value, (bool, Integral)) and value in (0, 1) else "true or false"
    if isinstance(given, io.Combo.Input):
        options = list(given.options or ())
        if (given.id in OWN_WORDS and isinstance(value, str)) or value in options:
            return None
        return one_of(options, value, get_close_matches(str(value), map(str, options), 3))
    if isinstance(given, io.String.Input):
        return None if isinstance(value, str) else "text"
    whole = isinstance(given, io.Int.Input)
    number = _number(value)
    within = number is not None and given.min <= number <= given.max and (not whole or number == int(number))
    return None if within else f"a {'whole ' * whole}number from {given.min:g} to {plain(given.max)}"


def _number(value: Any) -> float | None:
    """The finite number that a value is, or that a text says; None for anything else, a bool too."""
    if isinstance(value, bool) or not isinstance(value, (Real, str)):
        return None
    try:
        number = int(value) if isinstance(value, Integral) else float(value)
    except (ValueError, OverflowError):
        return None
    return number if isinstance(number, int) or math.isfinite(number) else None


def _as(kind: type[io.Input] | None, value: Any) -> Any:
    """A right value as its widget's type."""
    if value is None or isinstance(value, (list, tuple)):
        return value
    if kind is io.Boolean.Input:
        return bool(value)
    if kind is io.Int.Input and not isinstance(value, Integral):
        return int(float(value))
    return float(value) if kind is io.Float.Input and isinstance(value, str) else value
