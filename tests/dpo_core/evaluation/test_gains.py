"""Tests gains and their intervals on cases worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.gains import Gain, paired_gain
from dreambooth_dpo.dpo_core.json_values import to_json
from dreambooth_dpo.dpo_core.statistics import bootstrap_interval, by_prompt


def test_by_prompt_by_hand():
    """Prompt 2: (1 + 3) / 2 = 2; prompt 5: (10 + 20 + 60) / 3 = 30; the order is that of the prompt numbers."""
    assert by_prompt(np.array([10.0, 1, 20, 60, 3]), np.array([5, 2, 5, 5, 2])).tolist() == [2.0, 30.0]


def test_gain_by_hand_weights_prompts_equally():
    """Prompt 0 (three pictures) gains 1 each, prompt 1 (one picture) gains 5: (1 + 5) / 2 = 3, not 8 / 4 = 2."""
    gain = paired_gain(np.array([0.0, 1, 2, 0]), np.array([1.0, 2, 3, 5]), np.array([0, 0, 0, 1]))
    assert (gain.before, gain.after, gain.gain) == (0.5, 3.5, 3.0)
    assert (gain.images, gain.prompts) == (4, 2)


def test_gain_is_after_minus_before():
    gain = paired_gain(np.array([3.0, 3]), np.array([1.0, 1]), np.array([0, 1]))
    assert gain.gain == -2.0 and gain.verdict == "down"


def test_equal_differences_give_an_interval_of_width_zero():
    """Images differ widely, but each gains 0.25: paired, the interval is a point."""
    before = np.array([0.0, 10, -5, 3])
    gain = paired_gain(before, before + 0.25, np.arange(4))
    assert gain.ci95 == (0.25, 0.25) and gain.verdict == "up"


def test_prompts_are_resampled_not_images():
    """Two prompts of 50 images, differences 0 and 1.

    The mean of two drawn prompts is 0, 0.5 or 1 with probability 1/4, 1/2, 1/4, so the 2.5 % and 97.5 % quantiles are 0
    and 1; resampling the 100 images would give about 0.4 and 0.6.
    """
    prompt_of = np.repeat([0, 1], 50)
    gain = paired_gain(np.zeros(100), prompt_of.astype(float), prompt_of)
    assert gain.ci95 == (0.0, 1.0) and gain.verdict == "unclear"


def test_interval_agrees_with_the_normal_one_for_many_values():
    """400 values of deviation 1: mean +- 1.96 / 20 = +- 0.098."""
    values = np.random.default_rng(0).normal(size=400)
    values = (values - values.mean()) / values.std()
    low, high = bootstrap_interval(values, 4000)
    assert low == pytest.approx(-0.098, abs=0.01) and high == pytest.approx(0.098, abs=0.01)


def test_level_widens_the_interval():
    values = np.arange(20.0)
    narrow, wide = bootstrap_interval(values, 1000, level=0.5), bootstrap_interval(values, 1000, level=0.99)
    assert wide[0] < narrow[0] < 9.5 < narrow[1] < wide[1]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_interval_lies_within_the_values_and_repeats(values):
    low, high = bootstrap_interval(np.array(values), 200, seed=3)
    # A mean of equal values may differ from them by rounding.
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == bootstrap_interval(np.array(values), 200, seed=3)


def test_one_prompt_has_an_infinite_interval():
    gain = paired_gain(np.zeros(5), np.ones(5), np.zeros(5, int))
    assert gain.ci95 == (-np.inf, np.inf) and gain.verdict == "unclear"
    # An infinite interval must still be valid JSON.
    assert json.loads(json.dumps(to_json(gain), allow_nan=False))["ci95"] == [None, None]


def test_json_keys():
    found = to_json(Gain(before=0.5, after=0.75, gain=0.25, ci95=(0.125, 0.375), images=12, prompts=4))
    assert found == {"before": 0.5, "after": 0.75, "gain": 0.25, "ci95": [0.125, 0.375], "images": 12, "prompts": 4}


@pytest.mark.parametrize(
    ("ci95", "verdict"), [((0.1, 0.2), "up"), ((-0.2, -0.1), "down"), ((-0.1, 0.1), "unclear"), ((0.0, 1.0), "unclear")]
)
def test_verdicts(ci95, verdict):
    assert Gain(0, 0, 0, ci95, 1, 2).verdict == verdict


@pytest.mark.parametrize(("before", "after", "prompts"), [(3, 4, 3), (3, 3, 2)])
def test_unequal_lengths_are_refused(before, after, prompts):
    with pytest.raises(UserError, match="not paired"):
        paired_gain(np.zeros(before), np.zeros(after), np.zeros(prompts, int))


def test_no_picture_is_refused():
    with pytest.raises(UserError, match="no picture"):
        paired_gain(np.zeros(0), np.zeros(0), np.zeros(0, int))


def test_pictures_without_a_score_are_left_out_of_both_sides():
    """Prompt 0: 1 to 3 (the other picture has a score before only); prompt 1: 2 to 3; prompt 2: none. Gain 1.5."""
    nan = np.nan
    before, after = np.array([1, 9, 2, nan, 5, nan]), np.array([3, nan, 3, 7, nan, nan])
    found = paired_gain(before, after, np.array([0, 0, 1, 1, 2, 2]), 50)
    assert (found.before, found.after, found.gain) == (1.5, 3, 1.5)
    assert (found.images, found.prompts) == (2, 2)
    with pytest.raises(UserError, match="no picture to evaluate"):
        paired_gain(before[:2], np.full(2, nan), np.zeros(2, int), 50)
