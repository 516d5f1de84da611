"""When to kill."""

from __future__ import annotations

import random


def moments(draw: random.Random, count: int, seconds: float) -> list[float]:
    """When to kill each of `count` attempts, in seconds after its start: anywhere in what about is left of the run."""
    found, left = [], seconds
    for _ in range(count):
        found.append(draw.uniform(0, left))
        left = max(0.2 * seconds, left - 0.8 * found[-1])  # a kill undoes some work
    return found
