"""Checks that a run folder holds the run that is asked for: which settings may change on resume, and which not."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from ..errors import UserError
from ..settings import LoopSettings
from .folder import RunFolder

PARTS = "model_parts"
"""Name of the model's parts in what a run depends on: scheduler, tokenizer, UNet, VAE, text encoder."""


def check_same_run(run: RunFolder, described: dict, resume: bool) -> None:
    """Refuse to continue a run with other settings, or without `resume`; store the fact "described".

    Always allowed to change: more rounds, early stopping, sample grids, and the strength sweep. Before anything is
    trained, settings of pairs and training may change too, so that a window without pairs can be widened and the
    candidates reused; but not the precision once candidates exist, because it affects them. Raises UserError that names
    each changed setting with both values.
    """
    kept = run.fact("described")
    if kept is not None:
        changed = known_changes(_with_defaults(kept), described)
        changed = {k: v for k, v in changed.items() if not _only_adds(k, *v)}
        untrained = not any(run.state_path(name).is_file() for name in ("training_0", "adapter_1"))
        if untrained:
            drawn = {"settings.train.precision"} if run.has_candidates() else set()
            changed = {
                k: v
                for k, v in changed.items()
                if k in drawn or not k.startswith(("settings.pairs.", "settings.train."))
            }
        if changed:
            said = "; ".join(f"{name} was {old!r}, is {new!r}" for name, (old, new) in changed.items())
            raise UserError(
                f"{run.path} holds a run with other settings: {said}. Choose another output folder, or restore the old "
                "settings."
            )
        if not resume:
            raise UserError(
                f"{run.path} already holds this run. Add --resume to continue it, or choose another output folder."
            )
    run.set_fact("described", described)


def _only_adds(name: str, old: object, new: object) -> bool:
    """Whether a changed setting leaves everything that the run already holds valid."""
    if name == "settings.rounds":
        return isinstance(old, int) and isinstance(new, int) and new > old
    always = "settings.sweep", "settings.strength.strengths"
    return name in always or name.startswith(("settings.stop.", "settings.train.sample_"))


def known_changes(old: Mapping, new: Mapping) -> dict[str, tuple[object, object]]:
    """`changes`, without values of the model's parts that one of the two does not record.

    A run of an older version has none of them, and a library's next version may add or drop a setting. What is unknown
    is not a change; it is recorded from then on.
    """
    return {k: v for k, v in changes(old, new).items() if not (_unknown(old, k) or _unknown(new, k))}


def _unknown(described: Mapping, name: str) -> bool:
    """Whether a value of the model's parts is not recorded."""
    keys = name.split(".")
    value: object = described
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return keys[0] == PARTS
        value = value[key]
    return False


def _with_defaults(described: Mapping) -> dict:
    """Fill in defaults of settings that did not exist when the run was made."""
    try:
        settings = LoopSettings.model_validate(described.get("settings", {})).model_dump(mode="json")
    except ValidationError:  # settings of another version: compare them unchanged
        return dict(described)
    return {**described, "settings": settings} if "settings" in described else dict(described)


def changes(old: Mapping, new: Mapping, prefix: str = "") -> dict[str, tuple[object, object]]:
    """Dotted names of the values that differ, each with both values (long ones shortened)."""
    found: dict[str, tuple[object, object]] = {}
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= changes(a, b, f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = (_short(a), _short(b))
    return found


def _short(value: object) -> object:
    return value if len(repr(value)) <= 60 else repr(value)[:57] + "..."
