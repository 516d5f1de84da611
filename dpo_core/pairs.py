"""Better/worse pairs from scored candidates: the angle window (arXiv 2505.20975, section 3)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from .errors import UserError
from .settings import PairSettings


@dataclass(frozen=True)
class Pair:
    """Indices of two candidates of one prompt, and the improvement from loser to winner in standard deviations and degrees."""

    winner: int
    loser: int
    d_fidelity: float
    d_alignment: float

    @property
    def angle(self) -> float:
        return float(np.degrees(np.arctan2(self.d_alignment, self.d_fidelity)))

    @property
    def length(self) -> float:
        return float(np.hypot(self.d_fidelity, self.d_alignment))


@dataclass(frozen=True)
class PairYield:
    """Where the possible pairs went. `possible` counts every unordered pair of candidates of one prompt."""

    possible: int
    outside_window: int
    below_margin: int
    over_uses: int
    over_prompt_limit: int
    kept: int
    prompts: int
    prompts_without_pair: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def sentence(self) -> str:
        return (
            f"{self.kept} pairs from {self.possible} possible: {self.outside_window} outside the angle window, "
            f"{self.below_margin} below the margin, {self.over_uses} with a candidate used too often, "
            f"{self.over_prompt_limit} over the limit per prompt; "
            f"{self.prompts_without_pair} of {self.prompts} prompts gave none."
        )


def standardise(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """Scores in standard deviations of the round: float [n] -> float64 [n]; zeros where all values agree.

    With `prompt_of` (int [n]) the deviations are from each prompt's own mean, and their spread is pooled over the round. Pairs compare
    candidates of one prompt only; how much easier one prompt is than another must not shrink the axis on which they differ.
    """
    values = np.asarray(values, np.float64)
    inverse = np.zeros(len(values), int) if prompt_of is None else np.unique(prompt_of, return_inverse=True)[1]
    deviations = values - (np.bincount(inverse, values) / np.bincount(inverse))[inverse]
    spread = np.sqrt(np.mean(deviations**2)) if len(values) else 0.0
    # Equal values leave rounding noise in the deviation: treat it as none.
    if spread <= 1e-12 * float(np.abs(values).max(initial=0.0)):
        return np.zeros_like(values)
    return deviations / spread


def angle_degrees(d_alignment: np.ndarray, d_fidelity: np.ndarray) -> np.ndarray:
    """Direction of an improvement in degrees, -180..180: 0 = fidelity alone, 90 = alignment alone."""
    return np.degrees(np.arctan2(d_alignment, d_fidelity))


def _possible_of_prompt(members: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray) -> tuple[np.ndarray, ...]:
    """Every ordered (winner, loser) of one prompt with its two differences."""
    first, second = np.nonzero(~np.eye(len(members), dtype=bool))
    winner, loser = members[first], members[second]
    return winner, loser, fidelity[winner] - fidelity[loser], alignment[winner] - alignment[loser]


def angle_window_pairs(
    prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray, settings: PairSettings
) -> tuple[list[Pair], PairYield]:
    """Pairs whose improvement points into the window, longest first within each prompt.

    prompt_of: int [n], the prompt of each candidate; fidelity, alignment: float [n], raw scores (standardised here, see `standardise`).
    Returns pairs ordered by prompt, then length (ties by candidate order), and where the rest went. A pair whose both directions fit a wide
    window counts once, by its longer-standing direction (the first in candidate order).
    Raises UserError when a score is not finite or no prompt has two candidates.
    """
    prompt_of = np.asarray(prompt_of)
    _check_scores(prompt_of, fidelity, alignment)
    f, a = standardise(fidelity, prompt_of), standardise(alignment, prompt_of)
    pairs: list[Pair] = []
    tally = dict.fromkeys(("possible", "outside_window", "below_margin", "over_uses", "over_prompt_limit"), 0)
    prompts, order = np.unique(prompt_of, return_inverse=True)
    members = np.split(np.argsort(order, kind="stable"), np.cumsum(np.bincount(order))[:-1])
    empty = 0
    for group in members:
        kept = _pairs_of_prompt(group, f, a, settings, tally)
        pairs += kept
        empty += not kept
    return pairs, PairYield(**tally, kept=len(pairs), prompts=len(prompts), prompts_without_pair=empty)


def _pairs_of_prompt(group: np.ndarray, f: np.ndarray, a: np.ndarray, settings: PairSettings, tally: dict[str, int]) -> list[Pair]:
    winner, loser, df, da = _possible_of_prompt(group, f, a)
    angle, length = angle_degrees(da, df), np.hypot(df, da)
    inside = (angle >= settings.angle_low) & (angle <= settings.angle_high) & (length > 0)
    possible = len(group) * (len(group) - 1) // 2
    long_enough = inside & (length >= settings.margin)
    # Unordered pairs: a wide window may hold both directions of one.
    unordered = {tuple(sorted(p)) for p in zip(winner[inside].tolist(), loser[inside].tolist(), strict=True)}
    unordered_long = {tuple(sorted(p)) for p in zip(winner[long_enough].tolist(), loser[long_enough].tolist(), strict=True)}
    tally["possible"] += possible
    tally["outside_window"] += possible - len(unordered)
    tally["below_margin"] += len(unordered) - len(unordered_long)
    uses: dict[int, int] = {}
    kept: list[Pair] = []
    seen: set[tuple[int, ...]] = set()
    candidates = np.nonzero(long_enough)[0]
    for i in candidates[np.argsort(-length[candidates], kind="stable")]:
        w, el = int(winner[i]), int(loser[i])
        if (key := tuple(sorted((w, el)))) in seen:
            continue
        seen.add(key)
        if len(kept) >= settings.max_pairs_per_prompt:
            tally["over_prompt_limit"] += 1
        elif max(uses.get(w, 0), uses.get(el, 0)) >= settings.max_uses:
            tally["over_uses"] += 1
        else:
            uses[w], uses[el] = uses.get(w, 0) + 1, uses.get(el, 0) + 1
            kept.append(Pair(w, el, float(df[i]), float(da[i])))
    return kept


def _check_scores(prompt_of: np.ndarray, fidelity: np.ndarray, alignment: np.ndarray) -> None:
    for name, values in (("fidelity", fidelity), ("alignment", alignment)):
        if len(values) != len(prompt_of):
            raise UserError(f"{len(values)} {name} scores for {len(prompt_of)} candidates: score all candidates of the round first.")
        bad = np.nonzero(~np.isfinite(np.asarray(values, np.float64)))[0]
        if len(bad):
            raise UserError(
                f"{name} of candidate {int(bad[0])} is {values[int(bad[0])]}: a score must be finite. Look at the picture and score again."
            )
    counts = np.unique(prompt_of, return_counts=True)[1]
    if len(counts) == 0 or counts.max() < 2:
        raise UserError(
            "every prompt has fewer than two candidates, so no pair exists. Set candidates_per_prompt to 2 or more; 8 is usual."
        )


PAIR_RULES = {"angle_window": angle_window_pairs}
