"""Select the pairs of a scored set by the pair rule and store them in the run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..axes import AXES
from ..errors import UserError
from ..json_values import to_json
from ..progress import Progress, silent
from ..run.folder import RunFolder
from ..sampling.picture_check import check_scores
from ..scoring.sets import axis_scores
from ..settings import PairSettings
from .choose import PairYield
from .rules import PAIR_RULES


class NoPairs(UserError):
    """The pair rule selected no pair of a set."""


def build_pairs(
    run: RunFolder,
    set_name: str,
    settings: PairSettings,
    pairs_name: str,
    progress: Progress = silent,
    fidelity: str | Sequence[str] = "fidelity",
    alignment: str | Sequence[str] = "alignment",
) -> PairYield:
    """Select pairs of a scored set by the pair rule, store them under `pairs_name`, and return the yield.

    Facts stored in the run: "yield_<pairs_name>"; "window_<pairs_name>", the angles of the window if the rule has one;
    and "no_pairs_<pairs_name>", the reason and the remedy when no pair was selected (see `check_pairs`). `fidelity` and
    `alignment` name the scorers whose stored scores are used; several scorers of one axis are combined as
    `settings.combine` says. Raises UserError when a score is missing, and NothingToCompare when the scores of a
    scorer do not vary (see `check_scores`).
    """
    axes = [(names,) if isinstance(names, str) else tuple(names) for names in (fidelity, alignment)]
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    scores = [axis_scores(run, set_name, names, settings.combine) for names in axes]
    if settings.rule != "random":
        for axis, names in zip(AXES, axes, strict=True):
            for name in names:  # each by itself: beside another, a flat scorer would only weaken the axis unseen
                check_scores(run.score_array(set_name, name), prompt_of, axis, [name])
    pairs, pair_yield = PAIR_RULES[settings.rule](prompt_of, *scores, settings)
    run.set_pairs(pairs_name, pairs)
    run.set_fact(f"yield_{pairs_name}", to_json(pair_yield))
    run.set_fact(f"window_{pairs_name}", pair_yield.window)
    run.set_fact(f"no_pairs_{pairs_name}", None if pairs else _no_pairs(pair_yield, settings))
    progress(f"pairs {pairs_name}", len(pairs), max(1, len(pairs)), note=pair_yield.sentence())
    return pair_yield


def _no_pairs(pair_yield: PairYield, settings: PairSettings) -> str:
    """The reason why no pair was selected, and the remedy."""
    if not pair_yield.window:
        reason, remedy = f"no pair is better by the rule {settings.rule}", "Lower the margin, take another rule"
    else:
        reason = f"no pair fits the window {pair_yield.window[0]:g}..{pair_yield.window[1]:g} degrees"
        fixed = settings.window == "fixed"
        remedy = (
            "Widen the window (angle_low, angle_high), lower the margin" if fixed else "Move steer, lower the margin"
        )
    return f"{reason}: {pair_yield.sentence()} {remedy}, or sample more candidates. The scored candidates are kept."


def check_pairs(run: RunFolder, pairs_name: str) -> None:
    """Raises NoPairs, with the reason and the remedy, when no pairs are stored under `pairs_name`."""
    if not run.pairs(pairs_name):
        raise NoPairs(
            str(
                run.fact(f"no_pairs_{pairs_name}")
                or "No pairs left to train on. Lower the margin, widen the window, or undo rejections."
            )
        )
