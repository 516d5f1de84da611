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


def estimate_text(estimate: Mapping, form: str = "+.3f", times: float = 1) -> str:
    """ "+0.021 (+0.008 to +0.032)"; without the brackets if there is no interval."""
    text = f"{estimate['mean'] * times:{form}}"
    low, high = estimate["ci95"]
    return text if low is None else f"{text} ({low * times:{form}} to {high * times:{form}})"


def power_law(values: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """(p, c) of seconds = c * value^p: least squares of the logarithms. Needs two different values."""
    power, shift = np.polyfit(np.log(values), np.log(seconds), 1)
    return float(power), float(np.exp(shift))
