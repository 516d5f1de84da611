"""The pair rules: which of two candidates of a prompt is better, each a pure function of the round's scores.

All take prompt_of: int [n], the prompt of each candidate; fidelity, alignment: float [n], raw scores; and the settings.
All return pairs ordered by prompt, then improvement, with the yield, keep `max_pairs_per_prompt` and `max_uses`, and
raise UserError when a score is not finite or no prompt has two candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import UserError
from ..records import Pair
from ..settings import PairSettings
from ..statistics import spread_within, standardise
from .choose import Group, Judge, PairYield, angle_degrees, checked, choose

Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, PairSettings], tuple[list[Pair], PairYield]]
Window = tuple[float, float]

FIRST_CENTRE, LAST_CENTRE = 10.0, 80.0
NARROWEST, WIDEST, WIDER_BY = 15, 35, 5
"""Half-widths of the automatic window, and the step between them. Unit: degrees."""
ROUNDING = 1e-9
"""Smaller differences of a reward, in standard deviations, are rounding."""


# --- the angle window ---


def angle_window_pairs(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """DreamBoothDPO (arXiv 2505.20975, section 3): pairs whose improvement points into the window, longest first within
    each prompt.

    low <= degrees(atan2(d alignment, d fidelity)) <= high, with the differences in standard deviations, see
    `standardise`. The margin is for the length of the improvement. The window is the settings' own, or the one that
    `auto_window` finds.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    window = (
        _auto_window(prompt_of, f, a, settings)
        if settings.window == "auto"
        else (settings.angle_low, settings.angle_high)
    )
    return choose(prompt_of, f, a, settings, _points_into(window), window)


def _points_into(window: Window) -> Judge:
    def judge(group: Group) -> tuple[np.ndarray, np.ndarray]:
        angle, length = angle_degrees(group.d_alignment, group.d_fidelity), group.length
        return (angle >= window[0]) & (angle <= window[1]) & (length > 0), length

    return judge


def auto_window(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings) -> Window:
    """The window for the direction that `settings.steer` asks for, as narrow as the cloud of the round allows. Unit:
    degrees.

    Its centre is 10 + 70 * steer, so that 0.5 is an equal gain on both axes. It reaches 15 degrees to either side, and
    5 more until `settings.min_pairs` pairs are kept, 35 at most; it never goes below 0 or above 90, where one axis
    would be sold for the other.
    """
    return _auto_window(*checked(prompt_of, fidelity, alignment), settings)


def _auto_window(prompt_of: np.ndarray, f: np.ndarray, a: np.ndarray, settings: PairSettings) -> Window:
    centre = FIRST_CENTRE + (LAST_CENTRE - FIRST_CENTRE) * settings.steer
    windows = [(max(0.0, centre - half), min(90.0, centre + half)) for half in range(NARROWEST, WIDEST + 1, WIDER_BY)]
    for window in windows:
        if choose(prompt_of, f, a, settings, _points_into(window))[1].kept >= settings.min_pairs:
            return window
    return windows[-1]


# --- Pareto fronts ---


def pareto_fronts(fidelity: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """The front of each candidate, int [k]: 0 is dominated by none; the next is dominated by none once the fronts
    before are gone.

    One candidate dominates another when it is no worse on both axes and better on one. fidelity, alignment: float [k].
    """
    no_worse = (fidelity[:, None] >= fidelity) & (alignment[:, None] >= alignment)
    dominates = no_worse & ~no_worse.T
    front, index = np.full(len(fidelity), -1), 0
    while (left := front < 0).any():
        front[left & ~dominates[left].any(axis=0)] = index
        index += 1
    return front


def pareto_pairs(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """CaPO's pairs from Pareto fronts (arXiv 2502.02588): winners from a prompt's first front, losers from its last,
    longest first.

    F0 = {i : no j dominates i}, and so on for what is left, see `pareto_fronts`; a pair is any (i in F0, j in FK) with
    K > 0, the last. Its winner need not dominate its loser, but no candidate dominates the winner, and some do the
    loser. CaPO draws among these pairs at random; here the longest improvements come first, and the margin is for their
    length, as in the angle window.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    front = np.zeros(len(prompt_of), int)

    def judge(group: Group) -> tuple[np.ndarray, np.ndarray]:
        front[group.members] = pareto_fronts(f[group.members], a[group.members])
        last = front[group.members].max()
        return (front[group.winner] == 0) & (front[group.loser] == last) & (last > 0), group.length

    return choose(prompt_of, f, a, settings, judge)


# --- one reward made of two scores ---


def _by_reward(prompt_of: np.ndarray, f: np.ndarray, a: np.ndarray, reward: np.ndarray, settings: PairSettings):
    """Pairs by the difference of one reward (float [n], taken in standard deviations), which the margin is for."""
    r = standardise(reward, prompt_of)

    def judge(group: Group) -> tuple[np.ndarray, np.ndarray]:
        gain = r[group.winner] - r[group.loser]
        return gain > ROUNDING, gain

    return choose(prompt_of, f, a, settings, judge)


def lambda_harmonic(fidelity: np.ndarray, alignment: np.ndarray, weight: float) -> np.ndarray:
    """RPO's reward (arXiv 2407.12164): r = 1 / (lambda / IS' + (1 - lambda) / TS'), s' = (s + 1) / 2, lambda = weight.

    fidelity (IS), alignment (TS): cosines, float [n] -> float64 [n], 0..1. The lower score counts for more than in a
    weighted sum. For cosines 0 and 0.5 (s' 0.5 and 0.75) and lambda 0.5: 1 / (1 + 2/3) = 0.6, below their mean 0.625.
    Raises UserError for scores that are no cosines.
    """
    parts = []
    for name, values, share in (("fidelity", fidelity, weight), ("alignment", alignment, 1 - weight)):
        values = np.asarray(values, np.float64)
        if len(bad := np.nonzero(np.abs(values) > 1 + 1e-6)[0]):
            raise UserError(
                f"{name} of candidate {int(bad[0])} is {values[bad[0]]:g}, but the rule lambda_harmonic takes cosines, -1 to 1. "
                "Choose another rule, or a scorer that gives cosines."
            )
        # A cosine of -1 makes the reward 0, as the limit does; a share of 0 leaves the score out.
        parts.append(share / np.maximum((np.clip(values, -1.0, 1.0) + 1) / 2, 1e-12))
    return 1 / (parts[0] + parts[1])


def lambda_harmonic_pairs(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """RPO's pairs (arXiv 2407.12164): by the reward of `lambda_harmonic` with lambda = fidelity_weight, best over worst
    first.

    The margin is for the difference of r in its standard deviations over the round.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    return _by_reward(prompt_of, f, a, lambda_harmonic(fidelity, alignment, settings.fidelity_weight), settings)


def weighted_sum_pairs(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """The baseline that DreamBoothDPO rejects (arXiv 2505.20975): r = w * fidelity + (1 - w) * alignment, both in
    standard deviations.

    w = fidelity_weight. A great gain on one axis pays for a loss on the other. The margin is for the difference of r in
    its standard deviations over the round.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)
    return _by_reward(prompt_of, f, a, weighted_sum(prompt_of, fidelity, alignment, settings.fidelity_weight), settings)


def weighted_sum(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, weight: float) -> np.ndarray:
    """weight * fidelity + (1 - weight) * alignment, both in standard deviations within prompts, float64 [n]."""
    return weight * standardise(fidelity, prompt_of) + (1 - weight) * standardise(alignment, prompt_of)


def reward_of(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> np.ndarray | None:
    """What lambda_harmonic and weighted_sum hold against the margin, in its standard deviations, float64 [n]; None for
    rules without it.

    Raises UserError for scores that are no cosines, under lambda_harmonic.
    """
    if settings.rule == "lambda_harmonic":
        return standardise(lambda_harmonic(fidelity, alignment, settings.fidelity_weight), prompt_of)
    if settings.rule == "weighted_sum":
        return standardise(weighted_sum(prompt_of, fidelity, alignment, settings.fidelity_weight), prompt_of)
    return None


def reward_direction(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> float | None:
    """Where the reward of lambda_harmonic or weighted_sum rises fastest from the mean candidate, in the plane of
    standard deviations.

    degrees(atan2(dr / d alignment, dr / d fidelity)), each partial times its score's spread; None for rules without a
    reward. Raw scores, float [n]. weighted_sum with w 0.5: 45. lambda_harmonic with w 0.5, means 0 and 0.5 and equal
    spreads: dr goes by 1 / s'^2 = 4 and 16/9, 24 degrees: fidelity, the lower one, counts for more.
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
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """The control: pairs in random order and direction, whatever their scores; no margin. What it gains, no preference
    has brought.

    Order and direction are drawn from (settings.seed, prompt, number of its candidates), one draw of each for every
    possible pair.
    """
    prompt_of, f, a = checked(prompt_of, fidelity, alignment)

    def judge(group: Group) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((settings.seed, group.prompt, len(group.members)))
        first = group.winner < group.loser
        # winner and loser run in candidate order, so both directions of a pair come in one order, by their lower, then
        # higher index.
        forward, order = rng.random(first.sum()) < 0.5, rng.random(first.sum())
        back = np.lexsort((group.winner[~first], group.loser[~first]))
        better, strength = np.zeros(len(first), bool), np.zeros(len(first))
        better[first], strength[first] = forward, order
        backward = np.nonzero(~first)[0][back]
        better[backward], strength[backward] = ~forward, order
        return better, strength

    return choose(prompt_of, f, a, settings, judge, margin=0.0)


PAIR_RULES: dict[str, Rule] = {
    "angle_window": angle_window_pairs,
    "pareto": pareto_pairs,
    "lambda_harmonic": lambda_harmonic_pairs,
    "weighted_sum": weighted_sum_pairs,
    "random": random_pairs,
}
