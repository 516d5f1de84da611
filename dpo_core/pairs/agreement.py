"""How often scorers and the pair rule agree with a person's decisions, and what that recommends. Pure functions.

A decision keep prefers the pair's winner, swap its loser, and reject neither. An untouched pair is no decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .edits import Edits

LEAST = 20
"""Decisions (keep, swap, reject) from which shares are given; preferences (keep, swap) for a recommendation."""
WEIGHTS = tuple(round(0.05 * i, 2) for i in range(21))
"""Shares of fidelity that are tried, 0..1."""
TIE = 1e-9
"""Values that differ by no more than this share of the larger one are equal."""
Z = 1.959963984540054
"""Quantile of the normal distribution of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Choices:
    """A person's preferences: positions of the preferred and the other candidate, int [n] each.

    `kept`, `swapped`, `rejected`: numbers of decisions; n = kept + swapped.
    """

    preferred: np.ndarray
    other: np.ndarray
    kept: int = 0
    swapped: int = 0
    rejected: int = 0

    @property
    def decisions(self) -> int:
        return self.kept + self.swapped + self.rejected


def choices_of(edits: Edits, candidates: int) -> Choices:
    """The preferences in the edits; decisions on positions from `candidates` (their number) on are left out."""
    rows, done = [], {"keep": 0, "swap": 0, "reject": 0}
    for name, decision in sorted(edits.pairs.items(), key=lambda e: [int(p) for p in e[0].split("-")]):
        winner, loser = (int(p) for p in name.split("-"))
        if max(winner, loser) >= candidates:
            continue
        done[decision] += 1
        if decision != "reject":
            rows.append((winner, loser) if decision == "keep" else (loser, winner))
    both = np.asarray(rows, int).reshape(-1, 2)
    return Choices(both[:, 0], both[:, 1], done["keep"], done["swap"], done["reject"])


def agreeing(values: np.ndarray, choices: Choices) -> np.ndarray:
    """Whether values (float [candidates]) prefer what the person prefers: float64 [n].

    1: yes, 0: no, 0.5: both values are equal (see TIE), NaN: one of them is NaN, the picture has no score.
    """
    values = np.asarray(values, np.float64)
    mine, other = values[choices.preferred], values[choices.other]
    gap = mine - other
    near = np.abs(gap) <= TIE * np.maximum(np.abs(mine), np.abs(other))
    return np.where(np.isnan(gap), np.nan, np.where(near, 0.5, (gap > 0).astype(np.float64)))


def wilson(agreed: float, of: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927, JASA 22:209-212), both ends in 0..1; (0, 1) for none.

    (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2/4)) / (n + z^2), z = 1.96. It takes decisions as independent; pairs of
    one prompt or with a common candidate are less so, and then the true interval is somewhat wider.
    """
    if of == 0:
        return (0.0, 1.0)
    middle, half = agreed + Z**2 / 2, Z * np.sqrt(agreed * (of - agreed) / of + Z**2 / 4)
    low, high = (middle - half) / (of + Z**2), (middle + half) / (of + Z**2)
    return (max(0.0, float(low)), min(1.0, float(high)))


@dataclass(frozen=True)
class Share:
    """How often something agrees with the person: `agreed` (a tie is a half) of `of` preferences, with its interval."""

    title: str
    agreed: float
    of: int
    low: float
    high: float

    def words(self) -> str:
        """As "15 of 22 (68 %, 47 to 84)"."""
        if not self.of:
            return "no score on these pairs"
        share = 100 * self.agreed / self.of
        return f"{self.agreed:g} of {self.of} ({share:.0f} %, {100 * self.low:.0f} to {100 * self.high:.0f})"


def share_of(title: str, agrees: np.ndarray) -> Share:
    """The share of values of `agreeing`, float [n]; NaN is left out."""
    known = agrees[~np.isnan(agrees)]
    return Share(title, float(known.sum()), len(known), *wilson(float(known.sum()), len(known)))


# --- the share of fidelity that agrees best ---


@dataclass(frozen=True)
class Weight:
    """The weight that agrees best, beside the weight of the settings.

    `left_out`: agreement of weights chosen without the decision that they are tried on. `used`: whether the pair rule
    uses a weight; otherwise `rule` is one that would.
    """

    rule: str
    used: bool
    now: float
    now_share: Share
    best: float
    best_share: Share
    left_out: Share

    @property
    def recommended(self) -> bool:
        """Better than the present weight also on decisions that it was not chosen by."""
        return self.best != self.now and self.left_out.agreed > self.now_share.agreed

    def sentence(self) -> str:
        name = f"fidelity_weight {self.now:g}"
        if not self.used:
            name += f" (of the rule {self.rule}; yours uses no weight)"
        if not self.recommended:
            return f"No other fidelity_weight agrees better with you than {name}: {self.now_share.words()}."
        sure = "" if self.best_share.low > self.now_share.high else " The intervals overlap: more decisions would help."
        return (
            f"Recommended: fidelity_weight {self.best:g}, which agrees in {self.best_share.words()}; {name} agrees in "
            f"{self.now_share.words()}. Weights chosen without the decision they are tried on: "
            f"{self.left_out.words()}.{sure}"
        )


def best_of(totals: np.ndarray) -> int:
    """Index of the largest of the totals (float [w]); of several, the middle of the longest run of them."""
    top = np.nonzero(totals >= totals.max() - 1e-9)[0]
    runs = np.split(top, np.nonzero(np.diff(top) > 1)[0] + 1)
    longest = max(runs, key=len)
    return int(longest[(len(longest) - 1) // 2])


def best_weight(by_weight: Mapping[float, np.ndarray], now: np.ndarray, given: float, rule: str, used: bool) -> Weight:
    """The weight that agrees best with the person.

    by_weight: values of `agreeing` (float [n]) for each weight tried; now: those of the weight `given` by the settings.
    The present weight stays where none agrees more often. Choosing among many weights flatters the chosen one, so each
    decision is also tried with the weight that the others choose (leave-one-out; Stone 1974, JRSS B 36:111-147).
    """
    weights = np.asarray(list(by_weight), np.float64)
    table = np.nan_to_num(np.stack(list(by_weight.values())))  # no score: agrees with no weight
    known, totals = ~np.isnan(now), table.sum(axis=1)
    best = best_of(totals)
    without = totals[:, None] - table
    held = np.asarray([table[best_of(without[:, i]), i] for i in range(table.shape[1])])
    if totals[best] <= np.nan_to_num(now).sum() + 1e-9:
        chosen, share = given, share_of("best", now)
    else:
        chosen, share = float(weights[best]), share_of("best", table[best][known])
    return Weight(rule, used, given, share_of("now", now), chosen, share, share_of("left out", held[known]))


# --- all of it ---


@dataclass(frozen=True)
class Agreement:
    """Shares of the scorers and of the pair rule, and recommendations; shares are () below LEAST decisions."""

    choices: Choices
    shares: tuple[Share, ...] = ()
    rule: Share | None = None
    weight: Weight | None = None

    @property
    def lacking(self) -> int:
        """Decisions that are lacking, 0 where there are enough."""
        return max(0, LEAST - self.choices.decisions)

    @property
    def better(self) -> tuple[Share, ...]:
        """Scorers whose interval lies above that of the pair rule, the best first."""
        if self.rule is None or len(self.choices.preferred) < LEAST:
            return ()
        above = [share for share in self.shares if share.of and share.low > self.rule.high]
        return tuple(sorted(above, key=lambda share: -share.low))

    def lines(self) -> list[str]:
        """Sentences for the user."""
        given, preferences = self.choices, len(self.choices.preferred)
        if self.lacking:
            more = f"{self.lacking} more decision{'s' * (self.lacking > 1)}"
            return [
                f"Agreement of the scorers with you: {given.decisions} of {LEAST} decisions; {more} to be measured."
            ]
        found = [
            f"Agreement with your {preferences} preferences ({given.kept} kept, {given.swapped} swapped; "
            f"{given.rejected} rejected prefer neither), with 95 % intervals:"
        ]
        listed = [*self.shares, *([self.rule] if self.rule else [])]
        found += [f"- {share.title}: {share.words()}" for share in listed]
        if preferences < LEAST:
            short = LEAST - preferences
            return [*found, f"For a recommendation, {short} more pair{'s' * (short > 1)} must be kept or swapped."]
        found += [
            f"Recommended: {share.title} as the reward scorer; its interval lies above the pair rule's."
            for share in self.better
        ]
        return [*found, *([self.weight.sentence()] if self.weight else [])]
