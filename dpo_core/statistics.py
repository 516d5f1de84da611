"""Means, spreads and intervals of scores by prompt. Pure functions of arrays."""

from __future__ import annotations

import numpy as np


def prompt_means(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """For each value (float64 [n]) the mean of its prompt; without `prompt_of` (int [n]) the mean of all."""
    inverse = np.zeros(len(values), int) if prompt_of is None else np.unique(prompt_of, return_inverse=True)[1]
    return (np.bincount(inverse, values) / np.bincount(inverse))[inverse]


def spread_within(values: np.ndarray, prompt_of: np.ndarray | None = None) -> float:
    """Standard deviation of values (float [n]) from their prompts' own means, pooled over all prompts.

    0 where all values of each prompt are equal up to rounding.
    """
    values = np.asarray(values, np.float64)
    spread = float(np.sqrt(np.mean((values - prompt_means(values, prompt_of)) ** 2))) if len(values) else 0.0
    # The deviation of equal values is rounding noise, not a spread.
    return 0.0 if spread <= 1e-12 * float(np.abs(values).max(initial=0.0)) else spread


def standardise(values: np.ndarray, prompt_of: np.ndarray | None = None) -> np.ndarray:
    """Scores in standard deviations of the round: float [n] -> float64 [n]; zeros where there is no spread.

    With `prompt_of` (int [n]) deviations are from each prompt's own mean, and their spread is pooled over the round.
    Pairs compare candidates of one prompt only, so differences in difficulty between prompts must not shrink the axis.
    """
    values = np.asarray(values, np.float64)
    spread = spread_within(values, prompt_of)
    return (values - prompt_means(values, prompt_of)) / spread if spread else np.zeros_like(values)


def bootstrap_interval(values: np.ndarray, resamples: int, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [n] (one per prompt or concept).

    A single value gives an infinite interval.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return (-np.inf, np.inf)
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def by_prompt(values: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Mean of each prompt's values: [n] -> [prompts], in the order of np.unique."""
    _, inverse = np.unique(prompt_of, return_inverse=True)
    return np.bincount(inverse, values) / np.bincount(inverse)
