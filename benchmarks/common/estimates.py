"""Means over concepts with their intervals, and powers fitted to costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...dpo_core.statistics import bootstrap_interval

RESAMPLES = 10_000


def mean_estimate(values: Sequence[float]) -> dict:
    """{"mean", "ci95": 95 % bootstrap interval}; of a single value the interval is [None, None]."""
    interval = bootstrap_interval(np.asarray(values), RESAMPLES) if len(values) > 1 else (None, None)
    return {"mean": float(np.mean(values)), "ci95": list(interval)}


def two_level_estimate(values: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """As `mean_estimate`, of values [concepts, training seeds]: a bootstrap over concepts, and in each over its seeds.

    NaN, a run that is missing, is left out; so is a concept of NaN alone. The mean is that of the concepts' means. A
    resample draws as many concepts as there are, with replacement, and for each drawn one as many of its seeds. So the
    interval holds both doubts: other concepts, and other seeds of the same concept. With one seed it is the plain
    bootstrap over concepts. With fewer than two concepts it is [None, None].
    """
    known = [row[~np.isnan(row)] for row in np.asarray(values, np.float64)]
    known = [row for row in known if len(row)]
    mean = float(np.mean([row.mean() for row in known]))
    if len(known) < 2:
        return {"mean": mean, "ci95": [None, None]}
    draws, means = np.random.default_rng(seed), np.zeros(resamples)
    for chosen in draws.integers(0, len(known), (len(known), resamples)):
        for concept, row in enumerate(known):
            of = np.nonzero(chosen == concept)[0]
            means[of] += row[draws.integers(0, len(row), (len(of), len(row)))].mean(1) / len(known)
    return {"mean": mean, "ci95": [float(v) for v in np.quantile(means, [0.025, 0.975])]}


def estimate_text(estimate: Mapping, form: str = "+.3f", times: float = 1) -> str:
    """ "+0.021 (+0.008 to +0.032)"; without the brackets if there is no interval."""
    text = f"{estimate['mean'] * times:{form}}"
    low, high = estimate["ci95"]
    return text if low is None else f"{text} ({low * times:{form}} to {high * times:{form}})"


def power_law(values: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(p, c) of seconds = c * value^p: least squares of the logarithms. Needs two different values."""
    power, shift = np.polyfit(np.log(values), np.log(seconds), 1)
    return float(power), float(np.exp(shift))
