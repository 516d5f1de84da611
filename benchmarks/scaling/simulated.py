"""What more processes would take, from two measurements: a simulation, not a measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Seconds of a phase with one process beside another, and with two that share it; units: equal pieces of work."""

    one: float
    two: float
    units: int


def simulated(phase: Phase, processes: int) -> float:
    """Seconds of a phase on `processes` processes.

    seconds(n) = serial + shared * ceil(units / n) / units, with serial and shared from n = 1 and 2; serial is what the
    first process does alone (files, messages, sums), and is not taken to grow with n. With 10 s on one, 6 s on two and
    10 units: serial 2, shared 8; on 8 processes 2 + 8 * 2 / 10 = 3.6 s.
    """
    half = math.ceil(phase.units / 2) / phase.units
    shared = min(phase.one, (phase.one - phase.two) / (1 - half)) if phase.units > 1 else 0.0
    serial = max(0.0, phase.one - shared)
    return serial + shared * math.ceil(phase.units / processes) / phase.units
