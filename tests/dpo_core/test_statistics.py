"""Spreads at the level of rounding are no spreads."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.evaluation.stop_rule import axis_gain
from dreambooth_dpo.dpo_core.pairs.choose import choose
from dreambooth_dpo.dpo_core.settings import PairSettings
from dreambooth_dpo.dpo_core.statistics import (
    bootstrap_interval,
    by_prompt,
    deviations,
    mean_known,
    spread_within,
    standardise,
)

PROMPTS = np.asarray([0, 0, 1, 1])
NOISE = np.asarray([0.7, 0.7 + 1e-7, 0.3, 0.3 - 1e-7])


def test_rounding_is_no_spread():
    """0.7 and 0.7000001: within 1e-5 of 0.7. With 0.701 the deviations are +-0.0005, pooled 0.0005 / sqrt(2)."""
    assert spread_within(NOISE, PROMPTS) == 0 and (standardise(NOISE, PROMPTS) == 0).all()
    real = np.asarray([0.7, 0.701, 0.3, 0.3])
    assert spread_within(real, PROMPTS) == pytest.approx(0.0005 / 2**0.5)
    assert deviations(real, PROMPTS) == pytest.approx([-0.0005, 0.0005, 0, 0])
    assert standardise(real, PROMPTS) == pytest.approx([-(2**0.5), 2**0.5, 0, 0])


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0]])
def test_none_one_and_equal_values_have_no_spread(values):
    assert spread_within(np.asarray(values)) == 0 and not standardise(np.asarray(values)).any()


def test_a_start_that_varies_by_rounding_gives_no_gain():
    assert axis_gain("fidelity", {"fidelity": NOISE}, {"fidelity": NOISE + 1e-6}, PROMPTS).tolist() == [0, 0]


def test_candidates_that_differ_by_rounding_are_no_pair_at_margin_0():
    """Prompt 0 differs by 1e-7 standard deviations, prompt 1 by 1."""
    f = np.asarray([0.0, 1e-7, 0.0, 1.0])
    settings = PairSettings(margin=0.0, rule="weighted_sum")
    pairs, found = choose(PROMPTS, f, f, settings, lambda g: (g.d_fidelity > 0, g.length))
    assert [(p.winner, p.loser) for p in pairs] == [(3, 2)] and found.prompts_without_pair == 1


def test_values_that_are_unknown_count_in_no_mean():
    """Prompt 0: (1 + 3)/2; prompt 1: none. The interval is that of the prompts with a value."""
    nan = np.nan
    found = by_prompt(np.array([1, nan, 3, nan]), np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(found, [2, nan])
    assert mean_known(found) == 2 and np.isnan(mean_known(found[1:]))
    np.testing.assert_array_equal(mean_known([[1, nan, nan], [3, 5, nan]], axis=0), [2, 5, nan])
    values = np.array([1.0, 4, 2, 8])
    assert bootstrap_interval(np.insert(values, 2, nan), 50) == bootstrap_interval(values, 50)
    assert bootstrap_interval(found, 50) == (-np.inf, np.inf)
    assert mean_known(values) == values.mean()
