"""Means, spreads and intervals of scores by prompt. Pure functions of arrays."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-5
"""Scores do not vary where those of every prompt differ by no more than this share of the largest score (absolute):
a float32 scorer gives one picture scores that differ by about 1e-7 of their size from batch to batch.
"""


def prompt_means(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """For each value (float64 [n]) the mean of its prompt; without `prompt_of` (int [n]) the mean of all."""
    inverse = np.zeros(len(values), int) if prompt_of is None else np.unique(prompt_of, return_inverse=True)[1]
    return (np.bincount(inverse, values) / np.bincount(inverse))[inverse]


def spread_within(values: np.ndarray, prompt_of: np.ndarray | None = None) -> float:
    """Standard deviation of values (float [n]) from their prompts' own means, pooled over all prompts.

    Deviations at the level of rounding count as 0 (see `deviations`).
    """
    found = deviations(values, prompt_of)
    return float(np.sqrt(np.mean(found**2))) if len(found) else 0.0


def deviations(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """Deviation of each value (float [n]) from its prompt's mean, float64 [n].

    All exactly 0 where no prompt has values that differ by more than rounding (`ROUNDING`): else the rounding error of
    equal scores, divided by itself, would be a spread of several standard deviations.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return values
    inverse = np.zeros(len(values), int) if prompt_of is None else np.unique(prompt_of, return_inverse=True)[1]
    low, high = np.full(inverse.max() + 1, np.inf), np.full(inverse.max() + 1, -np.inf)
    np.minimum.at(low, inverse, values)
    np.maximum.at(high, inverse, values)
    if float((high - low).max()) <= ROUNDING * float(np.abs(values).max()):
        return np.zeros_like(values)
    return values - prompt_means(values, prompt_of)


def standardise(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """Scores in standard deviations of the round: float [n] -> float64 [n]; zeros where there is no spread.

    With `prompt_of` (int [n]) deviations are from each prompt's own mean, and their spread is pooled over the round.
    Pairs compare candidates of one prompt only, so differences in difficulty between prompts must not shrink the axis.
    """
    found = deviations(values, prompt_of)
    spread = float(np.sqrt(np.mean(found**2))) if len(found) else 0.0
    return found / spread if spread else found


def bootstrap_interval(values: np.ndarray, resamples: int, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [n] (one per prompt or concept).

    NaN, a prompt without a value, is left out. A single value gives an infinite interval.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return (-np.inf, np.inf)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def by_prompt(values: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Mean of each prompt's values: [n] -> [prompts], in the order of np.unique.

    NaN, a picture without a value, is left out: 1 NaN 3 of one prompt give 2, and a prompt of NaN alone gives NaN.
    """
    _, inverse = np.unique(prompt_of, return_inverse=True)
    known = ~np.isnan(np.asarray(values, np.float64))
    counts = np.bincount(inverse, known)
    sums = np.bincount(inverse, np.where(known, values, 0.0))
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def mean_known(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean over the values that are not NaN, along an axis or of all; NaN where there is none."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    counts = known.sum(axis=axis)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(sums, counts, out=np.full(np.shape(counts), np.nan), where=counts > 0)
