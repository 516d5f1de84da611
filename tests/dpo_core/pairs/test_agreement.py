"""Agreement of scores with a person's decisions: shares, intervals and recommendations, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.pairs.agreement import (
    LEAST,
    Agreement,
    Choices,
    agreeing,
    best_of,
    best_weight,
    choices_of,
    share_of,
    wilson,
)
from dreambooth_dpo.dpo_core.pairs.edits import Edits


def choices(*pairs: tuple[int, int], rejected: int = 0) -> Choices:
    both = np.asarray(pairs, int).reshape(-1, 2)
    return Choices(both[:, 0], both[:, 1], kept=len(pairs), rejected=rejected)


def test_keep_prefers_the_winner_swap_the_loser_and_reject_neither():
    edits = Edits(pairs={"10-2": "swap", "0-1": "keep", "3-4": "reject", "5-99": "keep"})
    found = choices_of(edits, 11)
    assert found.preferred.tolist() == [0, 2] and found.other.tolist() == [1, 10]
    assert (found.kept, found.swapped, found.rejected, found.decisions) == (1, 1, 1, 3)


def test_values_agree_disagree_tie_or_are_unknown():
    values = np.array([0.3, 0.2, 0.2 + 1e-12, np.nan])
    found = agreeing(values, choices((0, 1), (1, 0), (1, 2), (0, 3)))
    assert found[:3].tolist() == [1.0, 0.0, 0.5] and np.isnan(found[3])
    share = share_of("x", found)
    assert (share.agreed, share.of) == (1.5, 3)


@pytest.mark.parametrize(
    ("agreed", "of", "low", "high"),
    [
        # (15 + 1.92073 -+ 1.95996 sqrt(15 * 5 / 20 + 0.96036)) / 23.84146
        (15, 20, 0.5313, 0.8881),
        # 0 of 20: low 0, high z^2 / (20 + z^2) = 3.84146 / 23.84146
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(agreed: float, of: int, low: float, high: float):
    assert wilson(agreed, of) == pytest.approx((low, high), abs=1e-4)


def test_wilson_holds_the_true_share_in_95_of_100_samples():
    rng = np.random.default_rng(0)
    covered = [low <= 0.7 <= high for low, high in (wilson(k, 40) for k in rng.binomial(40, 0.7, 2000))]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_best_weight_is_the_middle_of_the_longest_run():
    assert best_of(np.array([3, 5, 1, 5, 5, 5, 2])) == 4
    assert best_of(np.array([5, 5, 1, 1])) == 0


def table(*rows: str) -> dict[float, np.ndarray]:
    return {i / (len(rows) - 1): np.asarray([float(c == "1") for c in row]) for i, row in enumerate(rows)}


def test_a_weight_that_agrees_better_is_recommended():
    """10 decisions: weight 0 agrees in 2, 0.5 in 4, 1 in 9. Without any one of them weight 1 stays the best."""
    rows = table("1100000000", "1111000000", "0111111111")
    found = best_weight(rows, rows[0.5], 0.5, "weighted_sum", used=True)
    assert (found.best, found.best_share.agreed, found.now_share.agreed, found.left_out.agreed) == (1.0, 9, 4, 9)
    assert found.recommended
    said = found.sentence()
    assert "Recommended: fidelity_weight 1, which agrees in 9 of 10" in said and "0.5 agrees in 4 of 10" in said


def test_a_weight_that_is_best_only_by_choice_is_not_recommended():
    """Weights of 3 and 2 hits of 4 each on other decisions.

    Without one of its own hits the best one ties with another, so that decisions are tried with a worse weight.
    """
    rows = table("1100", "0011", "0111")
    found = best_weight(rows, rows[0.5], 0.5, "weighted_sum", used=True)
    # Left out: 0 -> weight 1 (3 hits of the others), misses; 1 -> weights 0.5 and 1 with 2 each, 0.5 misses;
    # 2 and 3 -> weights 0 and 1 with 2 each, 0 misses.
    assert found.best == 1.0 and found.left_out.agreed == 0 and not found.recommended
    assert "No other fidelity_weight agrees better with you than fidelity_weight 0.5: 2 of 4" in found.sentence()


def test_the_present_weight_stays_where_none_is_better():
    rows = table("1110", "1110", "0110")
    found = best_weight(rows, rows[0.5], 0.5, "lambda_harmonic", used=False)
    assert found.best == 0.5 and not found.recommended
    assert "(of the rule lambda_harmonic; yours uses no weight)" in found.sentence()


def test_below_twenty_decisions_it_says_how_many_are_lacking():
    few = Agreement(choices(*[(0, 1)] * 17, rejected=2))
    assert few.lacking == 1
    assert few.lines() == ["Agreement of the scorers with you: 19 of 20 decisions; 1 more decision to be measured."]
    assert "0 of 20 decisions; 20 more decisions" in Agreement(choices()).lines()[0]


def test_a_scorer_whose_interval_lies_above_the_rules_is_recommended():
    rule = share_of("The pair rule", np.repeat([1.0, 0.0], [8, 22]))  # 8 of 30: high 0.445
    near = share_of("Near", np.repeat([1.0, 0.0], [17, 13]))  # low 0.392: the intervals overlap
    above = share_of("Judge", np.repeat([1.0, 0.0], [27, 3]))
    given = choices(*[(0, 1)] * 30)
    found = Agreement(given, (near, above), rule)
    assert found.better == (above,)
    assert "- Near: 17 of 30 (57 %, 39 to 73)" in found.lines()
    assert "Recommended: Judge as the reward scorer; its interval lies above the pair rule's." in found.lines()


def test_rejections_alone_recommend_nothing():
    found = Agreement(choices((0, 1), rejected=LEAST), (share_of("Judge", np.ones(1)),), share_of("rule", np.zeros(1)))
    assert found.better == ()
    assert found.lines()[-1] == "For a recommendation, 19 more pairs must be kept or swapped."
