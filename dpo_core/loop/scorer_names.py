"""What the scorers of a run must be named."""

from __future__ import annotations

from collections.abc import Sequence

from ..axes import AXES, axis_of
from ..errors import UserError
from ..protocols import Scorer


def check_scorers(rewards: Sequence[Scorer], judges: Sequence[Scorer]) -> None:
    """Refuse scorers whose names leave an axis empty, belong to none, or occur twice.

    Raises UserError for these, and where a scorer that gives some pictures no score is not a further reward.
    """
    if missing := {"fidelity", "alignment"} - {s.name for s in rewards}:
        raise UserError(
            f"reward scorers lack {sorted(missing)}: give one scorer named 'fidelity' and one named 'alignment'."
        )
    if strange := [s.name for s in rewards if axis_of(s.name) is None]:
        raise UserError(
            f"reward scorer {strange[0]!r} belongs to no axis: name it 'fidelity_2' or 'alignment_2' (3, 4, ...), "
            "or make it a judge."
        )
    whole = [*(s for s in rewards if s.name in AXES), *judges]
    if partly := next((s for s in whole if getattr(s, "unscored", "")), None):
        raise UserError(
            f"scorer {partly.name!r} gives some pictures no score ({partly.unscored}), so it can only be a further "
            "reward: name it 'fidelity_2' or 'alignment_2' (3, 4, ...)."
        )
    names = [s.name for s in [*rewards, *judges]]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise UserError(
            f"two scorers have the name {twice[0]!r}, so the scores of one would overwrite the other's. Give each "
            "scorer a name of its own."
        )
