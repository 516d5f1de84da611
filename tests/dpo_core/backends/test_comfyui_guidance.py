"""The noise level above which the ComfyUI backend applies guidance; needs no ComfyUI."""

from __future__ import annotations

import math

import pytest

from dreambooth_dpo.dpo_core.backends.comfyui.guidance import guided_above
from dreambooth_dpo.dpo_core.settings import SamplingSettings

SIGMAS = [10.0, 5.0, 2.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("until", "level"),
    # A hundredth of the last guided step (5 to 2) above the first level without guidance (2).
    [(0.5, 2.03), (0.6, 2.03), (0.25, 5.05), (0.75, 1.01), (1.0, 0.01), (0.9, 0.01), (0.1, math.inf), (0.0, math.inf)],
)
def test_the_level_by_hand(until, level):
    assert guided_above(SIGMAS, until) == pytest.approx(level)


@pytest.mark.parametrize("steps", [1, 3, 4, 20, 50])
@pytest.mark.parametrize("until", [0.0, 0.1, 0.3, 0.5, 0.77, 1.0])
def test_the_number_of_guided_steps_is_that_of_the_settings(steps, until):
    """The levels of a flow model, with small steps at the start."""
    levels = [12 * t / (1 + 11 * t) for t in (1 - i / steps for i in range(steps + 1))]
    above = guided_above(levels, until)
    assert (
        sum(level > above for level in levels[:-1]) == SamplingSettings(steps=steps, guidance_until=until).guided_steps
    )


def test_the_level_is_robust_to_rounding():
    """1000 steps of a flow model of shift 12: neighbours differ by less than 1e-4."""
    levels = [12 * t / (1 + 11 * t) for t in (1 - i / 1000 for i in range(1001))]
    above = guided_above(levels, 0.01)
    assert levels[9] * (1 - 2e-7) > above > levels[10] * (1 + 2e-7)
