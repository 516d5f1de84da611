"""Whether a run folder holds the run that is asked for: what may change when it goes on, and what may not."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from ..errors import UserError
from ..settings import LoopSettings
from .folder import RunFolder


def check_same_run(run: RunFolder, described: dict, resume: bool) -> None:
    """A run folder holds one run: the same settings go on (with resume), others are refused by name.

    More rounds, another stop rule and a sweep of strengths may always be asked for: what is there stays as it is.
    Before anything is trained, settings of pairs and training may change too: a window that no pair fits can be
    widened, and the kept candidates are used. The precision draws pictures as well: it may not change any more once
    there is one. Raises UserError; writes the fact "described".
    """
    kept = run.fact("described")
    if kept is not None:
        changed = changes(_with_defaults(kept), described)
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
                f"{run.path} holds a run with other settings: {said}. Choose another output folder, or take the old settings."
            )
        if not resume:
            raise UserError(
                f"{run.path} already holds this run. Add --resume to go on from where it stands, or choose another output folder."
            )
    run.set_fact("described", described)


def _only_adds(name: str, old: object, new: object) -> bool:
    """Whether a changed setting leaves all that the run holds as it is."""
    if name == "settings.rounds":
        return isinstance(old, int) and isinstance(new, int) and new > old
    return name in ("settings.sweep", "settings.strength.strengths") or name.startswith("settings.stop.")


def _with_defaults(described: Mapping) -> dict:
    """A run from before a setting was there has that setting's default."""
    try:
        settings = LoopSettings.model_validate(described.get("settings", {})).model_dump(mode="json")
    except ValidationError:  # of another version: compared as it stands
        return dict(described)
    return {**described, "settings": settings} if "settings" in described else dict(described)


def changes(old: Mapping, new: Mapping, prefix: str = "") -> dict[str, tuple[object, object]]:
    """Dotted names of what differs, with both values (long ones cut)."""
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
