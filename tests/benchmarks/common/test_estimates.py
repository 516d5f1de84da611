"""Means with intervals, and fitted powers."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.common.estimates import estimate_text, mean_estimate, power_law


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
