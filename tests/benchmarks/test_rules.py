"""The pair-rule benchmark's arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.rules import rule_settings, truth_of_pairs, winners_better
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS


def test_truth_of_pairs_by_hand():
    """Candidates right 1 1 0 0 1; pairs 0>2, 1>4, 3>2: winners 1 1 0, losers 0 1 0.

    Two of three winners right, one more than losers.
    """
    pairs = [Pair(0, 2, 1, 1), Pair(1, 4, 1, 1), Pair(3, 2, 1, 1)]
    found = truth_of_pairs(pairs, {"body": np.array([1.0, 1, 0, 0, 1])})
    assert found == {"pairs": 3, "winners body": pytest.approx(2 / 3), "gap body": pytest.approx(1 / 3)}
    assert np.isnan(truth_of_pairs([], {"body": np.ones(2)})["gap body"])


def test_winners_are_better_by_their_attributes():
    """Attributes right 2 1 2 0, pairs 0>1, 0>2, 3>2: one of three winners is better; all_right does not count."""
    pairs = [Pair(0, 1, 1, 1), Pair(0, 2, 1, 1), Pair(3, 2, 1, 1)]
    right = {"all_right": np.array([0, 0, 1, 0.0]), "body": np.array([1, 1, 1, 0.0]), "hat": np.array([1, 0, 1, 0.0])}
    assert winners_better(pairs, right) == pytest.approx(1 / 3) and np.isnan(winners_better([], right))


def test_every_rule_is_there_and_the_default_first():
    table = rule_settings(TOY_SETTINGS.pairs)
    assert {s.rule for s in table.values()} == set(PAIR_RULES) and next(iter(table.values())) == TOY_SETTINGS.pairs
