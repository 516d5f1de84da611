"""The order in which pairs are reviewed: those nearest to the boundary of the pair rule first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..records import Pair
from ..settings import PairSettings
from .rules import reward_of


def boundary_distance(
    pairs: Sequence[Pair],
    settings: PairSettings,
    window: tuple[float, float] | None,
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    layout: np.ndarray | None = None,
) -> list[float]:
    """Distance of each pair from the decision boundary of the rule; pairs with the smallest should be reviewed first.

    Unit: standard deviations of the round. angle_window: distance of the improvement's tip from the edge of the
    accepted region, min(|r - margin|, r sin d), with r the length of the improvement and d the angle to the nearer end
    of the window (r where d is 90 degrees or more). pareto: |r - margin|. lambda_harmonic, weighted_sum: |g - margin|,
    with g the difference of the reward in its standard deviations. random: 0, it has no boundary. layout: of the
    candidates that have both scores (`build.layout_of`), for `diversity`.
    """
    if settings.rule == "random":
        return [0.0] * len(pairs)
    lengths = _reward_gaps(pairs, settings, prompt_of, fidelity, alignment, layout)
    to_margin = [abs(length - settings.margin) for length in lengths]
    if settings.rule != "angle_window" or window is None:
        return to_margin
    to_edge = [p.length * np.sin(np.radians(min(90.0, _degrees_to(p.angle, window)))) for p in pairs]
    return [float(min(both)) for both in zip(to_margin, to_edge, strict=True)]


def _degrees_to(angle: float, window: tuple[float, float]) -> float:
    """Angular distance to the nearer end of the window, inside or outside it, 0..180 degrees."""
    apart = [abs((angle - end + 180) % 360 - 180) for end in window]
    return min(apart)


def _reward_gaps(
    pairs: Sequence[Pair],
    settings: PairSettings,
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    layout: np.ndarray | None,
) -> list[float]:
    """The value of each pair that the rule compares with the margin. A candidate without a score is in no pair."""
    known = ~np.isnan(fidelity + alignment)
    found = reward_of(prompt_of[known], fidelity[known], alignment[known], settings, layout)
    if found is None:
        return [p.length for p in pairs]
    reward = np.full(len(prompt_of), np.nan)
    reward[known] = found
    return [abs(float(reward[p.winner] - reward[p.loser])) for p in pairs]
