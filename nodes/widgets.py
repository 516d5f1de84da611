"""Makes widgets from settings fields, with their defaults, ranges, options and tooltips."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from comfy_api.latest import io
from pydantic.fields import FieldInfo

from ..dpo_core.settings import Settings, Widget, widget_fields
from ..dpo_core.settings.base import UNSET
from ..dpo_core.settings.words import kind_of

BEFORE = "dbdpo_before"
"""Key in an input's options: the value for graphs saved before the widget existed, if not the default.

web/saved.js reads it.
"""
SETTING = "dbdpo_setting"
"""Key in an input's options: the setting, as Class.field.

tools/make_node_texts.py writes the help pages' rows of inputs that have it.
"""
USED_WITH = "dbdpo_used_with"
"""Key in an input's options: {other widget: its values} with which the input has an effect.

web/advanced.js reads it.
"""
AUTO_VALUE = "dbdpo_auto"
"""Key in an input's options: the value that stands for that of the model's family. web/auto.js reads it."""
_SEEDS = ("seed", "train_seed", "round")


def _limits(field: FieldInfo, mark: Widget) -> dict[str, float]:
    """min and max of the widget, from the field's constraints (ge, gt, le, lt).

    For an exclusive limit the mark gives the end of the range; without one, max is lt - 1.
    """
    found = {n: getattr(m, n) for m in field.metadata for n in ("ge", "gt", "le", "lt") if hasattr(m, n)}
    least = mark.least if mark.least is not None else found["ge"]
    most = mark.most if mark.most is not None else found["le"] if "le" in found else found["lt"] - 1
    return {"min": least, "max": most}


def advanced(made: io.Input) -> io.Input:
    """The same input, hidden until advanced inputs are asked for (web/advanced.js)."""
    made.extra_dict = {**(made.extra_dict or {}), "advanced": True}  # older hosts lack the argument of that name
    return made


def used_with(made: io.Input, **others: Iterable[str]) -> io.Input:
    """The same input, hidden unless each of the other widgets has one of these values (see Widget.used_with)."""
    made.extra_dict = {**(made.extra_dict or {}), USED_WITH: {name: list(values) for name, values in others.items()}}
    return made


def widget(kind: type[Settings], setting: str, *, named: str = "", **over: Any) -> io.Input:
    """The input of one setting. named: its name on this node, if another. over: other arguments of io.Input here."""
    field, mark = next((field, mark) for name, field, mark in widget_fields(kind) if name == setting)
    default = field.default if mark.default is UNSET else mark.default
    given: dict[str, Any] = {"default": default, "tooltip": field.description}
    if mark.since:
        given["optional"] = True
    made = _input(named or mark.name or setting, field, mark, given, over)
    # As an attribute: 0.3.64's widgets do not take it as an argument.
    made.extra_dict = {SETTING: f"{kind.__name__}.{setting}"} | ({} if mark.before is UNSET else {BEFORE: mark.before})
    if mark.advanced:
        advanced(made)
    if mark.used_with:
        used_with(made, **dict(mark.used_with))
    if mark.default is not UNSET and mark.default in (mark.off, "auto"):
        made.extra_dict[AUTO_VALUE] = mark.default
    return made


def _input(name: str, field: FieldInfo, mark: Widget, given: dict[str, Any], over: dict[str, Any]) -> io.Input:
    """The io.Input for the field's type. given: arguments from the field; over: arguments that replace them."""
    of, default = kind_of(field), given["default"]
    if get_origin(of) is Literal:
        return io.Combo.Input(name, **given | {"options": list(get_args(of))} | over)
    if of is bool:
        return io.Boolean.Input(name, **given | over)
    if get_origin(of) is tuple:
        return io.String.Input(name, **given | {"default": ", ".join(f"{v:g}" for v in default)} | over)
    if mark.off is not UNSET and default is None:
        given["default"] = mark.off
    given |= _limits(field, mark)
    if of is int:
        given |= {"step": next((m.multiple_of for m in field.metadata if hasattr(m, "multiple_of")), None)}
        given |= {"control_after_generate": False} if name in _SEEDS else {}
        return io.Int.Input(name, **given | over)
    fine = {"round": False} if mark.step is not None and mark.step < 1e-3 else {}
    return io.Float.Input(name, **given | fine | {"step": mark.step if mark.step is not None else 1} | over)


def ordered(
    *kinds: type[Settings],
    beside: Iterable[io.Input] = (),
    order: Iterable[str] = (),
    without: Iterable[str] = (),
    younger: Iterable[io.Input] = (),
    since: int = 0,
) -> list[io.Input]:
    """The widgets of all `kinds` except `without`, and the inputs `beside` them, in the order of saved graphs.

    order: names of the first inputs, as in saved graphs. The others follow by their number (Widget.since); that of the
    inputs `younger` is `since`.
    """
    found = {i.id: (0, i) for i in beside} | {i.id: (since, i) for i in younger}
    for kind in kinds:
        for setting, _, mark in widget_fields(kind):
            found[mark.name or setting] = (mark.since, widget(kind, setting))
    first = [found.pop(name)[1] for name in order]
    left = sorted((item for name, item in found.items() if name not in without), key=lambda item: item[0])
    return first + [made for _, made in left]
