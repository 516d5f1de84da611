"""Select winner/loser pairs from scored candidates: the code that all pair rules share (rules: rules.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..errors import UserError
from ..json_values import from_json
from ..records import Pair
from ..settings import PairSettings
from ..statistics import standardise
from .variety import nearest_pairs

SAME = 1e-5
"""Two candidates whose scores differ by no more than this (standard deviations) are no pair, at any margin: it is
rounding.
"""


@dataclass(frozen=True)
class PairYield:
    """Counts of selected and discarded pairs.

    `possible`: all unordered pairs of candidates of one prompt. `not_better`: neither candidate is better by the rule.
    `below_margin`, `over_uses` (a candidate is in too many pairs), `over_prompt_limit`: discarded for that reason.
    `kept`: selected. `window`: the angle window in degrees; None for rules without one. `unscored`: candidates in no
    possible pair, because a scorer gave them no score (such as pictures without exactly one face).
    """

    possible: int
    not_better: int
    below_margin: int
    over_uses: int
    over_prompt_limit: int
    kept: int
    prompts: int
    prompts_without_pair: int
    window: tuple[float, float] | None = None
    unscored: int = 0
    not_near: int = 0
    """Better by the rule, but not among the nearest in composition (`PairSettings.matched`)."""

    def sentence(self) -> str:
        """The counts as one English sentence."""
        reason = "not better by the rule"
        if self.window:
            reason = f"outside the angle window {self.window[0]:g}..{self.window[1]:g} degrees"
        return (
            f"{self.kept} pairs from {self.possible} possible: {self.not_better} {reason}, "
            + (f"{self.not_near} not near in composition, " if self.not_near else "")
            + f"{self.below_margin} below the margin, {self.over_uses} with a candidate used too often, "
            f"{self.over_prompt_limit} over the limit per prompt; "
            f"{self.prompts_without_pair} of {self.prompts} prompts gave none."
            + (f" {self.unscored} candidates without a score were left out." if self.unscored else "")
        )


def read_yield(kept: Any) -> PairYield | None:
    """The pair yield of a run's fact; None where it lacks a count, as in a run of an older version."""
    try:
        return from_json(PairYield, kept)
    except ValidationError:
        return None


def angle_degrees(d_alignment: np.ndarray, d_fidelity: np.ndarray) -> np.ndarray:
    """Angle of an improvement in degrees, -180..180: 0 = pure fidelity gain, 90 = pure alignment gain."""
    return np.degrees(np.arctan2(d_alignment, d_fidelity))


@dataclass(frozen=True)
class Group:
    """The candidates of one prompt and all their ordered (winner, loser) pairs.

    prompt: index of the prompt in the round. members: int [k], candidate indices. winner, loser: int [m] with
    m = k * (k - 1), in candidate order. d_fidelity, d_alignment: float [m], improvement from loser to winner in
    standard deviations of the round.
    """

    prompt: int
    members: np.ndarray
    winner: np.ndarray
    loser: np.ndarray
    d_fidelity: np.ndarray
    d_alignment: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """Length of the improvement in the fidelity-alignment plane, float [m]."""
        return np.hypot(self.d_fidelity, self.d_alignment)


Preference = Callable[[Group], tuple[np.ndarray, np.ndarray]]
"""A pair rule applied to one prompt: bool [m], whether each (winner, loser) is a pair, and float [m], by how much.

The second array is compared with the margin and orders the pairs.
"""


def checked(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check the raw scores (float [n]); returns prompt_of (int [n]) and both scores standardised (float [n]).

    Raises UserError when a score is missing or not finite, or when no prompt has two candidates.
    """
    prompt_of = np.asarray(prompt_of)
    _check_scores(prompt_of, fidelity, alignment)
    return prompt_of, standardise(fidelity, prompt_of), standardise(alignment, prompt_of)


def _groups(prompt_of: np.ndarray, f: np.ndarray, a: np.ndarray) -> Iterator[Group]:
    """One Group for each prompt."""
    _, order = np.unique(prompt_of, return_inverse=True)
    for prompt, members in enumerate(np.split(np.argsort(order, kind="stable"), np.cumsum(np.bincount(order))[:-1])):
        first, second = np.nonzero(~np.eye(len(members), dtype=bool))
        winner, loser = members[first], members[second]
        yield Group(prompt, members, winner, loser, f[winner] - f[loser], a[winner] - a[loser])


def choose(
    prompt_of: np.ndarray,
    f: np.ndarray,
    a: np.ndarray,
    settings: PairSettings,
    preference: Preference,
    window: tuple[float, float] | None = None,
    margin: float | None = None,
    layout: np.ndarray | None = None,
) -> tuple[list[Pair], PairYield]:
    """Select the pairs that `preference` calls better by at least the margin, largest improvement first.

    prompt_of: int [n]; f, a: float [n], standardised. margin: None takes that of the settings. layout: float [n, d],
    the candidates' composition (`variety.composition`), for `settings.matched`. Returns the pairs, ordered by prompt,
    then improvement (ties by candidate order), and the yield. A pair that the rule accepts in both directions counts
    once, in the direction of the larger improvement (the first of two equal ones).
    """
    pairs: list[Pair] = []
    tally = dict.fromkeys(("possible", "not_better", "not_near", "below_margin", "over_uses", "over_prompt_limit"), 0)
    prompts = empty = 0
    for group in _groups(prompt_of, f, a):
        near = _near(group, settings, layout)
        kept = _pairs_of_prompt(
            group, *preference(group), near, settings, settings.margin if margin is None else margin, tally
        )
        pairs += kept
        prompts += 1
        empty += not kept
    return pairs, PairYield(**tally, kept=len(pairs), prompts=prompts, prompts_without_pair=empty, window=window)


def _near(group: Group, settings: PairSettings, layout: np.ndarray | None) -> np.ndarray:
    """Which (winner, loser) are near enough in composition, bool [m]: all of them without `settings.matched`."""
    if settings.matched is None:
        return np.ones(len(group.winner), bool)
    first, second = (np.searchsorted(group.members, side) for side in (group.winner, group.loser))
    return nearest_pairs(with_layout(layout, "matched")[group.members], first, second, settings.matched)


def with_layout(layout: np.ndarray | None, setting: str) -> np.ndarray:
    """The candidates' composition. Raises UserError where a rule that needs it did not get it."""
    if layout is None:
        raise UserError(f"{setting} needs the candidates' latents, which are not here. Leave {setting} at its default.")
    return layout


def _unordered(group: Group, chosen: np.ndarray) -> int:
    """Number of unordered pairs among the chosen (winner, loser); a rule may accept both directions of a pair."""
    return len(
        {tuple(sorted(p)) for p in zip(group.winner[chosen].tolist(), group.loser[chosen].tolist(), strict=True)}
    )


def _pairs_of_prompt(
    group: Group,
    better: np.ndarray,
    strength: np.ndarray,
    near: np.ndarray,
    settings: PairSettings,
    margin: float,
    tally: dict[str, int],
) -> list[Pair]:
    """Select the pairs of one prompt within the limits, strongest first; adds the discarded ones to `tally`."""
    if settings.rule != "random":  # which does not look at the scores
        better = better & (group.length > SAME)
    possible, fitting = len(group.winner) // 2, _unordered(group, better)
    tally["possible"] += possible
    tally["not_better"] += possible - fitting
    better = better & near
    tally["not_near"] += fitting - (fitting := _unordered(group, better))
    enough = better & (strength >= margin)
    tally["below_margin"] += fitting - _unordered(group, enough)
    uses: dict[int, int] = {}
    kept: list[Pair] = []
    seen: set[tuple[int, ...]] = set()
    candidates = np.nonzero(enough)[0]
    for i in candidates[np.argsort(-strength[candidates], kind="stable")]:
        w, el = int(group.winner[i]), int(group.loser[i])
        if (key := tuple(sorted((w, el)))) in seen:
            continue
        seen.add(key)
        if len(kept) >= settings.max_pairs_per_prompt:
            tally["over_prompt_limit"] += 1
        elif max(uses.get(w, 0), uses.get(el, 0)) >= settings.max_uses:
            tally["over_uses"] += 1
        else:
            uses[w], uses[el] = uses.get(w, 0) + 1, uses.get(el, 0) + 1
            kept.append(Pair(w, el, float(group.d_fidelity[i]), float(group.d_alignment[i])))
    return kept


def _check_scores(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray) -> None:
    for name, values in (("fidelity", fidelity), ("alignment", alignment)):
        if len(values) != len(prompt_of):
            raise UserError(
                f"{len(values)} {name} scores for {len(prompt_of)} candidates: score all candidates of the round first."
            )
        bad = np.nonzero(~np.isfinite(np.asarray(values, np.float64)))[0]
        if len(bad):
            raise UserError(
                f"{name} of candidate {int(bad[0])} is {values[int(bad[0])]}, but a score must be finite. "
                "Look at the picture and score again."
            )
    counts = np.unique(prompt_of, return_counts=True)[1]
    if len(counts) == 0 or counts.max() < 2:
        raise UserError(
            "every prompt has fewer than two candidates, so no pair exists. "
            "Set candidates_per_prompt to 2 or more; 8 is usual."
        )
