"""Digits of a number and its interval."""

from __future__ import annotations

import math

import pytest

from dreambooth_dpo.dpo_core.digits import decimals, interval_of, signed, with_interval


@pytest.mark.parametrize(
    ("numbers", "places"),
    [
        ((0.2, 0.1, 0.3), 2),  # width 0.2: two digits are two decimals
        ((1.2, 0.4, 2.0), 2),
        ((0.0045, 0.001, 0.007), 4),  # width 0.006
        ((0.05, 0.0004, 0.1), 4),  # the bound 0.0004 would be 0.00
        ((0.01, 1e-9, 0.02), 5),  # two more than the width 0.02 needs, not nine
        ((0.0, 0.0, 0.0), 2),
        ((0.004, None, None), 4),
        ((1e-9, None, None), 6),
    ],
)
def test_decimals(numbers: tuple, places: int) -> None:
    assert decimals(*numbers) == places


def test_a_gain_is_never_written_as_nothing() -> None:
    assert with_interval(0.004, 0.0004, 0.012, unit="SD") == "+0.0040 SD (+0.0004 to +0.0120)"
    assert with_interval(0.2, 0.1, 0.3) == "+0.20 (+0.10 to +0.30)"
    assert with_interval(0.2, -math.inf, math.inf) == "+0.20 (no interval: a single prompt)"


def test_zero_has_no_minus() -> None:
    assert signed(-0.0001, 2) == "+0.00"
    assert interval_of(0.0, -0.05, 0.05, least=3) == ("+0.000", "-0.050 to +0.050")
