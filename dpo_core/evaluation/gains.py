"""Paired gains with intervals: same held-out prompts and seeds before and after, bootstrap over prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..json_values import High, Low
from ..statistics import bootstrap_interval, by_prompt


@dataclass(frozen=True)
class Gain:
    """Means before and after, their difference, and its 95 % interval (percentile bootstrap over prompts)."""

    before: float
    after: float
    gain: float
    ci95: tuple[Low, High]
    images: int
    prompts: int

    @property
    def verdict(self) -> str:
        """Where the interval lies: "up" (above 0), "down" (below 0) or "unclear"."""
        low, high = self.ci95
        return "up" if low > 0 else "down" if high < 0 else "unclear"


def scored_pairs(
    before: np.ndarray, after: np.ndarray, prompt_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both scores and the prompts of the images that have a score before and after: float [m], float [m], int [m]."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    known = ~(np.isnan(before) | np.isnan(after))
    return before[known], after[known], np.asarray(prompt_of)[known]


def paired_gain(
    before: np.ndarray, after: np.ndarray, prompt_of: np.ndarray, resamples: int = 2000, seed: int = 0
) -> Gain:
    """Gain of paired images: before, after float [n] with the same prompt and seed at each index; prompt_of int [n].

    Prompts are resampled, not images, because images of one prompt are not independent. An image without a score (NaN)
    before or after is left out of both (`scored_pairs`). Raises UserError when the lengths differ or no image is left.
    """
    if not len(before) == len(after) == len(prompt_of):
        raise UserError(
            f"{len(before)} pictures before and {len(after)} after are not paired: evaluate both with the same prompts "
            "and seeds."
        )
    before, after, prompt_of = scored_pairs(before, after, prompt_of)
    if len(before) == 0:
        raise UserError("there is no picture to evaluate. Give at least one held-out prompt.")
    differences = by_prompt(np.asarray(after, np.float64) - np.asarray(before, np.float64), prompt_of)
    return Gain(
        before=float(by_prompt(before, prompt_of).mean()),
        after=float(by_prompt(after, prompt_of).mean()),
        gain=float(differences.mean()),
        ci95=bootstrap_interval(differences, resamples, seed),
        images=len(before),
        prompts=len(differences),
    )
