"""Select the pairs of a scored set by the pair rule and store them in the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..axes import AXES
from ..errors import UserError
from ..json_values import to_json
from ..progress import Progress, silent
from ..run.folder import RunFolder
from ..sampling.picture_check import NothingToCompare, check_scores
from ..scoring.sets import axis_scores
from ..settings import PairSettings
from .choose import PairYield
from .rewards import candidate_rewards
from .rules import PAIR_RULES
from .variety import composition

Axis = str | Sequence[str]
"""Names of the scorers of an axis."""


class NoPairs(UserError):
    """The pair rule selected no pair of a set."""


def build_pairs(
    run: RunFolder,
    set_name: str,
    settings: PairSettings,
    pairs_name: str,
    progress: Progress = silent,
    fidelity: Axis = "fidelity",
    alignment: Axis = "alignment",
) -> PairYield:
    """Select pairs of a scored set by the pair rule, store them under `pairs_name`, and return the yield.

    Facts stored in the run: "yield_<pairs_name>"; "window_<pairs_name>", the angles of the window if the rule has one;
    and "no_pairs_<pairs_name>", the reason and the remedy when no pair was selected (see `check_pairs`). `fidelity` and
    `alignment` name the scorers whose stored scores are used; several scorers of one axis are combined as
    `settings.combine` says. A candidate that a scorer gave no score (NaN) is neither winner nor loser: it has no place
    in the fidelity-alignment plane, so no improvement from or to it has a length or an angle. Raises UserError when a
    score is missing, and NothingToCompare when the scores of a scorer do not vary (see `check_scores`) or no prompt has
    two candidates with all scores.
    """
    axes, prompt_of, scores, usable = _scored(run, set_name, settings, fidelity, alignment)
    if settings.rule != "random":
        for axis, names in zip(AXES, axes, strict=True):
            for name in names:  # each by itself: beside another, a flat scorer would only weaken the axis unseen
                check_scores(run.score_array(set_name, name)[usable], prompt_of[usable], axis, [name])
    pairs, pair_yield = PAIR_RULES[settings.rule](
        prompt_of[usable], *(s[usable] for s in scores), settings, layout_of(run, set_name, settings, usable)
    )
    if left_out := int((~usable).sum()):
        place, prompts = np.nonzero(usable)[0], len(np.unique(prompt_of))
        pairs = [replace(p, winner=int(place[p.winner]), loser=int(place[p.loser])) for p in pairs]
        without = pair_yield.prompts_without_pair + prompts - pair_yield.prompts
        pair_yield = replace(pair_yield, prompts=prompts, prompts_without_pair=without, unscored=left_out)
    run.set_pairs(pairs_name, pairs)
    run.set_fact(f"yield_{pairs_name}", to_json(pair_yield))
    run.set_fact(f"window_{pairs_name}", pair_yield.window)
    run.set_fact(f"no_pairs_{pairs_name}", None if pairs else _no_pairs(pair_yield, settings))
    progress(f"pairs {pairs_name}", len(pairs), max(1, len(pairs)), note=pair_yield.sentence())
    return pair_yield


def rewards(run: RunFolder, set_name: str, settings: PairSettings, fidelity: Axis, alignment: Axis) -> np.ndarray:
    """Advantages of a scored set's candidates by the pair rule (`candidate_rewards`), float64 [n]; NaN without score.

    Arguments and errors as for `build_pairs`.
    """
    _, prompt_of, scores, usable = _scored(run, set_name, settings, fidelity, alignment)
    found = np.full(len(prompt_of), np.nan)
    layout = layout_of(run, set_name, settings, usable)
    found[usable] = candidate_rewards(prompt_of[usable], *(s[usable] for s in scores), settings, layout)
    return found


def _scored(
    run: RunFolder, set_name: str, settings: PairSettings, fidelity: Axis, alignment: Axis
) -> tuple[list[tuple[str, ...]], np.ndarray, list[np.ndarray], np.ndarray]:
    """Scorer names of both axes, the candidates' prompts (int [n]), both scores (float [n]), and which have both."""
    axes = [(names,) if isinstance(names, str) else tuple(names) for names in (fidelity, alignment)]
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    scores = [axis_scores(run, set_name, names, settings.combine) for names in axes]
    return axes, prompt_of, scores, _with_all_scores(run, prompt_of, scores, [n for names in axes for n in names])


def layout_of(run: RunFolder, set_name: str, settings: PairSettings, usable: np.ndarray) -> np.ndarray | None:
    """Composition of the usable candidates (bool [n]), float [k, d]; None where the settings do not need it."""
    return composition(run.latents(set_name).float().numpy()[usable]) if settings.looks_at_latents else None


def _with_all_scores(
    run: RunFolder, prompt_of: np.ndarray, scores: Sequence[np.ndarray], names: Sequence[str]
) -> np.ndarray:
    """Which candidates have a score on each axis, bool [n]. Raises NothingToCompare as `build_pairs` does."""
    usable = ~np.isnan(np.stack(scores)).any(axis=0)
    if not usable.all() and np.unique(prompt_of[usable], return_counts=True)[1].max(initial=0) < 2:
        told = run.fact("unscored") or {}
        why = "; ".join(f"{told[name]}, by {name}" for name in names if name in told) or "a scorer gave none"
        raise NothingToCompare(
            f"{int((~usable).sum())} of {len(usable)} candidates have no score ({why}), and no prompt has two with all "
            "scores, so there is nothing to compare. Look at the pictures. Use prompts that show the subject alone and "
            "near enough, more candidates per prompt, or leave that scorer out."
        )
    return usable


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
