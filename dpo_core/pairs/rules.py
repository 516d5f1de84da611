"""Pair rules: pure functions that decide from a round's scores which of two candidates of a prompt is better.

All rules take prompt_of: int [n], the prompt of each candidate; fidelity, alignment: float [n], raw scores; and the
settings; and layout: the candidates' composition, float [n, d] (variety.py), which `matched` and `diversity` need and
other settings leave unused. They return the pairs, ordered by prompt, then improvement, and the yield. They respect
`max_pairs_per_prompt` and `max_uses`, and raise UserError when a score is not finite or no prompt has two candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import UserError
from ..records import Pair
from ..settings import PairSettings
from ..statistics import spread_within, standardise
from .choose import Group, PairYield, Preference, angle_degrees, checked, choose, with_layout
from .variety import varied

Rule = Callable[..., tuple[list[Pair], PairYield]]
"""rule(prompt_of, fidelity, alignment, settings, layout=None)"""
Window = tuple[float, float]

FIRST_CENTRE, LAST_CENTRE = 10.0, 80.0
"""Centre of the automatic window at steer 0 and at steer 1, in degrees."""
NARROWEST, WIDEST, WIDER_BY = 15, 35, 5
"""Smallest and largest half-width of the automatic window, and the step between them, in degrees."""
ROUNDING = 1e-9
"""Differences of a reward up to this size, in standard deviations, count as rounding."""


# --- the angle window ---


def angle_window_pairs(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """DreamBoothDPO (arXiv 2505.20975, section 3): pairs whose angle lies in the window, longest first in each prompt.

    low <= degrees(atan2(d alignment, d fidelity)) <= high, with the differences in standard deviations (see
    `standardise`). The margin applies to the length of the improvement. The window is that of the settings, or
    computed by `auto_window`.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    window = (
        _auto_window(prompt_of, f, a, settings, layout)
        if settings.window == "auto"
        else (settings.angle_low, settings.angle_high)
    )
    return choose(prompt_of, f, a, settings, _points_into(window), window, layout=layout)


def _points_into(window: Window) -> Preference:
    def preference(group: Group) -> tuple[np.ndarray, np.ndarray]:
        angle, length = angle_degrees(group.d_alignment, group.d_fidelity), group.length
        return (angle >= window[0]) & (angle <= window[1]) & (length > 0), length

    return preference


def auto_window(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> Window:
    """The narrowest window around the direction of `settings.steer` that gives enough pairs: (low, high) in degrees.

    The centre is 10 + 70 * steer, so 0.5 is an equal gain on both axes. The half-width starts at 15 and grows in steps
    of 5, up to 35, until `settings.min_pairs` pairs are selected. The window stays within 0..90: outside, a gain on one
    axis would be a loss on the other. Raises UserError as the rules do.
    """
    return _auto_window(*checked(prompt_of, fidelity, alignment), settings, layout)


def _auto_window(
    prompt_of: np.ndarray, f: np.ndarray, a: np.ndarray, settings: PairSettings, layout: np.ndarray | None
) -> Window:
    centre = FIRST_CENTRE + (LAST_CENTRE - FIRST_CENTRE) * settings.steer
    windows = [(max(0.0, centre - half), min(90.0, centre + half)) for half in range(NARROWEST, WIDEST + 1, WIDER_BY)]
    for window in windows:
        found = choose(prompt_of, f, a, settings, _points_into(window), layout=layout)[1]
        if found.kept >= settings.min_pairs:
            return window
    return windows[-1]


# --- Pareto fronts ---


def pareto_fronts(fidelity: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Index of the Pareto front of each candidate: fidelity, alignment float [k] -> int [k].

    Front 0 is dominated by no candidate; front i by none when the fronts before it are removed. A candidate dominates
    another when it is no worse on both axes and better on at least one.
    """
    no_worse = (fidelity[:, None] >= fidelity) & (alignment[:, None] >= alignment)
    dominates = no_worse & ~no_worse.T
    front, index = np.full(len(fidelity), -1), 0
    while (left := front < 0).any():
        front[left & ~dominates[left].any(axis=0)] = index
        index += 1
    return front


def pareto_pairs(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """CaPO's Pareto pairs (arXiv 2502.02588): winners from the first front of a prompt, losers from the last.

    A pair is any (i in F0, j in FK), where FK with K > 0 is the last front (see `pareto_fronts`). The winner need not
    dominate its loser, but no candidate dominates the winner and at least one dominates the loser. CaPO samples from
    these pairs at random; here the longest improvements come first and the margin applies to their length, as in the
    angle window.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    front = np.zeros(len(prompt_of), int)

    def preference(group: Group) -> tuple[np.ndarray, np.ndarray]:
        front[group.members] = pareto_fronts(f[group.members], a[group.members])
        last = front[group.members].max()
        return (front[group.winner] == 0) & (front[group.loser] == last) & (last > 0), group.length

    return choose(prompt_of, f, a, settings, preference, layout=layout)


# --- one reward from two scores ---


def _by_reward(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None,
) -> tuple[list[Pair], PairYield]:
    """Pairs by the difference of `reward_of`, which the margin applies to."""
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    r = reward_of(prompt_of, fidelity, alignment, settings, layout)

    def preference(group: Group) -> tuple[np.ndarray, np.ndarray]:
        gain = r[group.winner] - r[group.loser]
        return gain > ROUNDING, gain

    return choose(prompt_of, f, a, settings, preference, layout=layout)


def lambda_harmonic(fidelity: np.ndarray, alignment: np.ndarray, weight: float) -> np.ndarray:
    """RPO's reward (arXiv 2407.12164): r = 1 / (lambda / IS' + (1 - lambda) / TS'), s' = (s + 1) / 2, lambda = weight.

    fidelity (IS), alignment (TS): cosines, float [n] -> float64 [n], 0..1. The lower score has more weight than in a
    weighted sum: cosines 0 and 0.5 (s' 0.5 and 0.75) with lambda 0.5 give 1 / (1 + 2/3) = 0.6, below their mean 0.625.
    Raises UserError when a score is not a cosine (-1..1).
    """
    parts = []
    for name, values, share in (("fidelity", fidelity, weight), ("alignment", alignment, 1 - weight)):
        values = np.asarray(values, np.float64)
        if len(bad := np.nonzero(np.abs(values) > 1 + 1e-6)[0]):
            raise UserError(
                f"{name} of candidate {int(bad[0])} is {values[bad[0]]:g}, but the rule lambda_harmonic takes cosines "
                "from -1 to 1. Choose another rule, or a scorer that gives cosines."
            )
        # A cosine of -1 gives reward 0, which is also the limit; with share 0 the score has no effect.
        parts.append(share / np.maximum((np.clip(values, -1.0, 1.0) + 1) / 2, 1e-12))
    return 1 / (parts[0] + parts[1])


def lambda_harmonic_pairs(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """RPO's pairs (arXiv 2407.12164), by the reward of `lambda_harmonic` with lambda = fidelity_weight.

    Pairs with the largest difference come first. The margin applies to the difference of r, in its standard deviations
    over the round.
    """
    return _by_reward(prompt_of, fidelity, alignment, settings.model_copy(update={"rule": "lambda_harmonic"}), layout)


def weighted_sum_pairs(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """Pairs by the weighted sum r = w * fidelity + (1 - w) * alignment of standardised scores, w = fidelity_weight.

    The baseline that DreamBoothDPO rejects (arXiv 2505.20975): a large gain on one axis outweighs a loss on the other.
    The margin applies to the difference of r, in its standard deviations over the round.
    """
    return _by_reward(prompt_of, fidelity, alignment, settings.model_copy(update={"rule": "weighted_sum"}), layout)


def weighted_sum(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, weight: float) -> np.ndarray:
    """weight * fidelity + (1 - weight) * alignment, both in standard deviations within prompts, float64 [n]."""
    return weight * standardise(fidelity, prompt_of) + (1 - weight) * standardise(alignment, prompt_of)


def reward_of(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> np.ndarray | None:
    """The standardised reward of lambda_harmonic and weighted_sum, float64 [n]; None for rules without a reward.

    These rules compare its differences with the margin. `settings.diversity` adds variety to it (`variety.varied`),
    which needs a `layout`. Raises UserError when lambda_harmonic gets a score that is not a cosine.
    """
    if settings.rule == "lambda_harmonic":
        reward = lambda_harmonic(fidelity, alignment, settings.fidelity_weight)
    elif settings.rule == "weighted_sum":
        reward = weighted_sum(prompt_of, fidelity, alignment, settings.fidelity_weight)
    else:
        return None
    plain = standardise(reward, prompt_of)
    if not settings.diversity:
        return plain
    return varied(plain, np.asarray(prompt_of), with_layout(layout, "diversity"), settings.diversity)


def reward_direction(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> float | None:
    """Angle of the reward's gradient at the mean candidate, in degrees; None for rules without a reward.

    For lambda_harmonic and weighted_sum: degrees(atan2(dr / d alignment, dr / d fidelity)), each partial derivative
    times the spread of its score, since the plane is in standard deviations. Takes raw scores, float [n]. weighted_sum
    with w 0.5: 45. lambda_harmonic with w 0.5, means 0 and 0.5 and equal spreads: the derivatives are proportional to
    1 / s'^2 = 4 and 16/9, so 24 degrees: fidelity, the lower score, has more weight.
    """
    w = settings.fidelity_weight
    if settings.rule == "weighted_sum":
        return float(angle_degrees(np.float64(1 - w), np.float64(w)))
    if settings.rule != "lambda_harmonic" or not len(fidelity):
        return None
    parts = []
    for values, share in ((fidelity, w), (alignment, 1 - w)):
        values = np.asarray(values, np.float64)
        parts.append(share * spread_within(values, prompt_of) / max((values.mean() + 1) / 2, 1e-6) ** 2)
    return float(angle_degrees(parts[1], parts[0])) if any(parts) else None


# --- the control ---


def random_pairs(
    prompt_of: np.ndarray,
    fidelity: np.ndarray,
    alignment: np.ndarray,
    settings: PairSettings,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """The control: pairs in random order and direction, without regard to scores or margin.

    A gain by this rule is not caused by the preference. Order and direction of every possible pair are drawn from
    (settings.seed, prompt, number of its candidates).
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)

    def preference(group: Group) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((settings.seed, group.prompt, len(group.members)))
        first = group.winner < group.loser
        # The pairs in one direction (`first`) are sorted by lower, then higher index; `back` sorts the other direction
        # in the same way, so that both directions of a pair get the same draw.
        forward, order = rng.random(first.sum()) < 0.5, rng.random(first.sum())
        back = np.lexsort((group.winner[~first], group.loser[~first]))
        better, strength = np.zeros(len(first), bool), np.zeros(len(first))
        better[first], strength[first] = forward, order
        backward = np.nonzero(~first)[0][back]
        better[backward], strength[backward] = ~forward, order
        return better, strength

    return choose(prompt_of, f, a, settings, preference, margin=0.0, layout=layout)


PAIR_RULES: dict[str, Rule] = {
    "angle_window": angle_window_pairs,
    "pareto": pareto_pairs,
    "lambda_harmonic": lambda_harmonic_pairs,
    "weighted_sum": weighted_sum_pairs,
    "random": random_pairs,
}
