"""A number and its interval in words, with as many digits as the interval's width makes worth reading."""

from __future__ import annotations

import math

MOST = 6
"""The most decimals."""
NO_INTERVAL = "none (one prompt)"
"""A table's cell for an interval: a single held-out prompt has none."""


def decimals(mean: float, low: float | None, high: float | None, least: int = 2) -> int:
    """Decimals for a mean and its interval: two significant digits of the interval's width, `least` to 6.

    A bound that is not 0 gets up to two more to show its first digit, so that "above 0" is not written as 0.00.
    Without a finite interval the mean counts instead. (0.1, 0.3) -> 2; (0.004, 0.012) -> 4; (0.0004, 0.2) -> 4.
    """
    finite = [v for v in (low, high) if v is not None and math.isfinite(v)]
    width = finite[1] - finite[0] if len(finite) == 2 and finite[1] > finite[0] else abs(mean)
    enough = 1 - _exponent(width)
    shown = max((-_exponent(v) for v in finite), default=0)
    return max(least, min(MOST, max(enough, min(shown, enough + 2))))


def _exponent(value: float) -> int:
    """Place of the first digit: 0.5 -> -1, 0.05 -> -2, 3 -> 0; 0 for 0 and for what is not finite."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def signed(value: float, places: int) -> str:
    """ "+0.004"; 0 never as "-0.000"."""
    return f"{round(value, places) + 0.0:+.{places}f}"


def interval_of(
    mean: float, low: float | None, high: float | None, least: int = 2, to: str = " to "
) -> tuple[str, str]:
    """The mean and its interval with equal decimals: ("+0.004", "+0.001 to +0.007").

    The interval is "" where it has no finite bounds: a single prompt.
    """
    places = decimals(mean, low, high, least)
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return signed(mean, places), ""
    return signed(mean, places), f"{signed(low, places)}{to}{signed(high, places)}"


def with_interval(mean: float, low: float | None, high: float | None, least: int = 2, unit: str = "") -> str:
    """ "+0.12 standard deviations (+0.04 to +0.20)"; of a single prompt "(no interval: a single prompt)"."""
    said, interval = interval_of(mean, low, high, least)
    return f"{said}{unit and ' '}{unit} ({interval or 'no interval: a single prompt'})"
