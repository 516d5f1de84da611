"""Means with intervals, and fitted powers."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.common.estimates import estimate_text, mean_estimate, power_law, two_level_estimate


def test_a_mean_by_hand():
    """0.1, 0.3, -0.1: mean 0.1; the bootstrap's interval lies between the smallest and the largest."""
    found = mean_estimate([0.1, 0.3, -0.1])
    low, high = found["ci95"]
    assert found["mean"] == pytest.approx(0.1) and -0.1 - 1e-9 <= low < 0.1 < high <= 0.3 + 1e-9
    assert mean_estimate([0.1]) == {"mean": 0.1, "ci95": [None, None]}


def test_an_estimate_in_words():
    assert estimate_text({"mean": 0.021, "ci95": [0.008, 0.0324]}) == "+0.021 (+0.008 to +0.032)"
    assert estimate_text({"mean": 0.2, "ci95": [None, None]}, "+.1f", 100) == "+20.0"


def test_a_power_is_found_again():
    assert power_law([1, 2, 4], [3, 12, 48]) == pytest.approx((2.0, 3.0))


def test_two_levels_by_hand():
    """Seeds that agree: 0 and 1 in two concepts, resampled means 0, 1/2 and 1 with 1/4, 1/2, 1/4: 0 to 1.

    Concepts that agree, each with seeds 0 and 1: a mean of three concepts is binomial(6, 1/2) / 6, which is 0 in 1.6 %
    and at most 1/6 in 10.9 % of the draws, so the interval is 1/6 to 5/6. Over concepts alone it would be a point.
    """
    found = two_level_estimate(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert found == {"mean": 0.5, "ci95": [0.0, 1.0]}
    found = two_level_estimate(np.tile([0.0, 1.0], (3, 1)))
    assert found["mean"] == 0.5 and found["ci95"] == pytest.approx([1 / 6, 5 / 6])
    assert mean_estimate(np.tile([0.0, 1.0], (3, 1)).mean(1))["ci95"] == [0.5, 0.5]


def test_two_levels_with_missing_runs():
    """A concept's mean is over the seeds that it has: (1 + 3) / 2 and 5, so 3.5; a concept without any is left out."""
    values = np.array([[1.0, 3.0], [5.0, np.nan], [np.nan, np.nan]])
    assert two_level_estimate(values)["mean"] == 3.5
    assert two_level_estimate(values[:1]) == {"mean": 2.0, "ci95": [None, None]}


def test_two_levels_with_one_seed_are_one_level():
    values = np.random.default_rng(1).normal(size=12)
    one, two = mean_estimate(values)["ci95"], two_level_estimate(values[:, None])["ci95"]
    assert two == pytest.approx(one, abs=0.03)
