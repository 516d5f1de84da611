"""One reward for each candidate: the rule's own, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.pairs.rewards import candidate_rewards
from dreambooth_dpo.dpo_core.settings import PairSettings

PROMPTS = np.array([0, 0, 0, 0, 1, 1])


def rewards(fidelity: list[float], alignment: list[float], **settings: object) -> np.ndarray:
    return candidate_rewards(PROMPTS, np.array(fidelity), np.array(alignment), PairSettings(**settings))


def test_weighted_sum_by_hand():
    """Fidelity alone: deviations -1, 1, -1, 1 and -1, 1 from the prompts' means, whose pooled spread is 1."""
    found = rewards([0, 2, 0, 2, 7, 9], [0, 0, 1, 1, 0, 1], rule="weighted_sum", fidelity_weight=1.0)
    assert found.tolist() == pytest.approx([-1, 1, -1, 1, -1, 1])


def test_lambda_harmonic_by_hand():
    """Equal cosines 0 and 1 on both axes: r = s' = 0.5 and 1, deviations of 0.25, so -1 and 1."""
    scores = [0, 1, 0, 1, 0, 1]
    assert rewards(scores, scores, rule="lambda_harmonic").tolist() == pytest.approx([-1, 1, -1, 1, -1, 1])


def test_an_angle_window_rewards_its_centre():
    """Window -10..10: fidelity alone; 80..100: alignment alone."""
    fidelity, alignment = [0, 2, 0, 2, 7, 9], [1, 1, 0, 0, 0, 1]
    low = rewards(fidelity, alignment, rule="angle_window", angle_low=-10, angle_high=10)
    assert low.tolist() == pytest.approx([-1, 1, -1, 1, -1, 1])
    high = rewards(fidelity, alignment, rule="angle_window", angle_low=80, angle_high=100)
    assert high.tolist() == pytest.approx([1, 1, -1, -1, -1, 1])


def test_pareto_rewards_the_front():
    """(0, 0) is dominated by (1, 1); (2, 0) and (0, 2) are not: fronts 1, 0, 0, 0 of mean 1/4; 0 and 0 of mean 0.

    Deviations of the negated fronts: -3/4, three times 1/4, 0 and 0; spread sqrt((9 + 3) / 16 / 6).
    """
    found = rewards([0, 1, 2, 0, 0, 1], [0, 1, 0, 2, 1, 0], rule="pareto")
    expected = np.array([-0.75, 0.25, 0.25, 0.25, 0, 0]) / np.sqrt(12 / 16 / 6)
    assert found.tolist() == pytest.approx(expected.tolist())


def test_random_rewards_do_not_look_at_the_scores():
    one = rewards([0, 1, 2, 0, 0, 1], [0, 1, 0, 2, 1, 0], rule="random", seed=3)
    assert one.tolist() == rewards([9, 8, 7, 6, 5, 4], [0] * 6, rule="random", seed=3).tolist()
    assert one.tolist() != rewards([0] * 6, [0] * 6, rule="random", seed=4).tolist()
    assert [one[:4].mean(), one[4:].mean(), (one**2).mean()] == pytest.approx([0, 0, 1], abs=1e-12)
