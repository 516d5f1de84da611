"""The other pair rules and the automatic window: cases worked out by hand, and property tests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.json_values import to_json
from dreambooth_dpo.dpo_core.pairs.choose import read_yield
from dreambooth_dpo.dpo_core.pairs.rules import (
    PAIR_RULES,
    auto_window,
    lambda_harmonic,
    lambda_harmonic_pairs,
    pareto_fronts,
    pareto_pairs,
    random_pairs,
    reward_direction,
    reward_of,
    weighted_sum_pairs,
)
from dreambooth_dpo.dpo_core.settings import PairSettings
from dreambooth_dpo.dpo_core.statistics import standardise

OPEN = {"margin": 0.0, "max_pairs_per_prompt": 100, "max_uses": 100}
every_rule = pytest.mark.parametrize("rule", PAIR_RULES)


def run_rule(choose, prompt_of, fidelity, alignment, **changes):
    return choose(
        np.array(prompt_of), np.array(fidelity, float), np.array(alignment, float), PairSettings(**{**OPEN, **changes})
    )


def indices(pairs):
    return [(p.winner, p.loser) for p in pairs]


# --- Pareto fronts ---

CORNER = ([0, 1, 2, 0, 1], [2, 1, 0, 0, 0])
"""A(0,2), B(1,1), C(2,0) are dominated by none; E(1,0) by B and C; D(0,0) by all others.

So the fronts are {A, B, C}, {E} and {D}: without the first front, E still dominates D.
"""


def test_fronts_by_hand():
    assert pareto_fronts(*map(np.array, CORNER)).tolist() == [0, 0, 0, 2, 1]


def test_equal_candidates_do_not_dominate_each_other():
    """Two copies of (1,1) over two of (0,0): two fronts of two."""
    assert pareto_fronts(np.array([1, 0, 1, 0]), np.array([1, 0, 1, 0])).tolist() == [0, 1, 0, 1]


def test_first_front_over_last_by_hand():
    """Spreads: fidelity sqrt(2.8 / 5) = 0.748331, alignment sqrt(3.2 / 5) = 0.8. The loser is D.

    Lengths: C 2 / 0.748331 = 2.672612, A 2 / 0.8 = 2.5, B sqrt(1.336306^2 + 1.25^2) = 1.829813. The other 7 of 10
    possible pairs do not fit the rule.
    """
    pairs, found = run_rule(pareto_pairs, [0] * 5, *CORNER)
    assert indices(pairs) == [(2, 3), (0, 3), (1, 3)]
    assert [p.length for p in pairs] == pytest.approx([2.672612, 2.5, 1.829813], abs=1e-6)
    assert (found.possible, found.not_better, found.kept, found.window) == (10, 7, 3, None)
    assert "7 not better by the rule" in found.sentence() and "window" not in found.sentence()
    pairs, found = run_rule(pareto_pairs, [0] * 5, *CORNER, margin=2.0)
    assert indices(pairs) == [(2, 3), (0, 3)] and found.below_margin == 1


def test_a_winner_of_the_first_front_need_not_dominate_its_loser():
    """A(0,2), B(2,1), C(1,0): B dominates C, A does not; A and B are on the first front."""
    pairs, _ = run_rule(pareto_pairs, [0] * 3, [0, 2, 1], [2, 1, 0])
    assert sorted(indices(pairs)) == [(0, 2), (1, 2)]


def test_a_single_front_gives_no_pair():
    pairs, found = run_rule(pareto_pairs, [0] * 3, [0, 1, 2], [2, 1, 0])
    assert pairs == [] and found.not_better == 3


# --- rewards ---


@pytest.mark.parametrize(
    ("fidelity", "alignment", "weight", "reward"),
    [
        (0, 0.5, 0.5, 0.6),
        (0.5, 0, 0.5, 0.6),
        (0, 0.5, 1, 0.5),
        (0, 0.5, 0, 0.75),
        (0, 0.5, 0.25, 2 / 3),
        (1, 1, 0.3, 1),
        (-1, 1, 0.5, 0),
    ],
)
def test_the_harmonic_reward_by_hand(fidelity, alignment, weight, reward):
    """Cosines 0 and 0.5 become 0.5 and 0.75: 1 / (0.5 / 0.5 + 0.5 / 0.75) = 0.6; lambda 0.25: 1 / (0.5 + 1) = 2/3."""
    assert lambda_harmonic(np.array([fidelity]), np.array([alignment]), weight) == pytest.approx([reward], abs=1e-9)


def test_harmonic_pairs_by_hand():
    """Rewards 0.6, 0.6, 1: mean 0.733333, spread sqrt((2 * 0.017778 + 0.071111) / 3) = 0.188562.

    A difference of 0.4 is 2.121320 spreads.
    """
    scores = ([0] * 3, [0, 0.5, 1], [0.5, 0, 1])
    pairs, found = run_rule(lambda_harmonic_pairs, *scores, margin=2.12)
    assert indices(pairs) == [(2, 0), (2, 1)] and found.not_better == 1
    assert run_rule(lambda_harmonic_pairs, *scores, margin=2.13)[1].below_margin == 2
    pairs, _ = run_rule(lambda_harmonic_pairs, *scores, fidelity_weight=1.0, max_pairs_per_prompt=1)
    assert indices(pairs) == [(2, 0)], "best over worst in fidelity alone"


def test_scores_that_are_not_cosines_are_refused():
    with pytest.raises(UserError, match=r"alignment of candidate 1 is 21\.5.*cosines.*another rule"):
        run_rule(lambda_harmonic_pairs, [0, 0], [0.1, 0.2], [0.5, 21.5])


@pytest.mark.parametrize(
    ("weight", "kept"), [(0.5, []), (0.75, [(1, 0)]), (0.25, [(0, 1)]), (1.0, [(1, 0)]), (0.0, [(0, 1)])]
)
def test_the_weighted_sum_trades_one_axis_for_the_other(weight, kept):
    """Candidate 1 is better in fidelity by 2 and worse in alignment by 2.

    The axis with the larger weight decides; with equal weights there is no difference.
    """
    pairs, _ = run_rule(weighted_sum_pairs, [0, 0], [0, 1], [1, 0], fidelity_weight=weight)
    assert indices(pairs) == kept
    assert [p.angle for p in pairs] == pytest.approx([-45.0 if kept == [(1, 0)] else 135.0] * len(kept))


def test_the_margin_of_the_weighted_sum_is_in_its_own_standard_deviations():
    """Weight 0.75: sums -0.5 and 0.5, spread 0.5, so the difference is 2."""
    for margin, count in ((2.0, 1), (2.001, 0)):
        assert (
            len(run_rule(weighted_sum_pairs, [0, 0], [0, 1], [1, 0], fidelity_weight=0.75, margin=margin)[0]) == count
        )


# --- the control ---


def test_random_pairs_ignore_scores_and_margin():
    prompts, rng = np.repeat(np.arange(40), 5), np.random.default_rng(3)
    one, found = run_rule(random_pairs, prompts, rng.normal(size=200), rng.normal(size=200), rule="random")
    other, _ = run_rule(random_pairs, prompts, np.zeros(200), np.zeros(200), margin=10.0, rule="random")
    assert indices(one) == indices(other)
    assert found.kept == found.possible == 400 and (found.not_better, found.below_margin) == (0, 0)
    assert 150 < sum(w < el for w, el in indices(one)) < 250, "either direction about as often"
    assert indices(run_rule(random_pairs, prompts, np.zeros(200), np.zeros(200), seed=1, rule="random")[0]) != indices(
        one
    )
    assert len({frozenset(p) for p in indices(one)}) == 400


def test_random_pairs_of_a_prompt_do_not_depend_on_other_prompts():
    alone, _ = run_rule(random_pairs, [0] * 4, [0] * 4, [0] * 4, rule="random")
    beside, _ = run_rule(random_pairs, [0] * 4 + [1] * 6, [0] * 10, [0] * 10, rule="random")
    assert indices(beside)[:6] == indices(alone)


# --- every rule ---


@st.composite
def rounds(draw):
    """A few prompts, coarse cosines (ties occur), any limits."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda s: max(s) > 1))
    scores = st.lists(st.integers(-4, 4), min_size=sum(sizes), max_size=sum(sizes))
    prompt_of = draw(st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist()))
    changes = {
        "margin": draw(st.sampled_from([0.0, 0.5, 1.5])),
        "max_pairs_per_prompt": draw(st.integers(1, 5)),
        "max_uses": draw(st.integers(1, 3)),
        "fidelity_weight": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        "window": draw(st.sampled_from(["fixed", "auto"])),
        "steer": draw(st.floats(0, 1)),
        "min_pairs": draw(st.integers(0, 9)),
    }
    return np.array(prompt_of), np.array(draw(scores)) / 4, np.array(draw(scores)) / 4, changes


@every_rule
@given(drawn=rounds())
def test_every_rule_respects_the_limits_and_counts_every_pair(rule, drawn):
    prompt_of, fidelity, alignment, changes = drawn
    limits = PairSettings(rule=rule, **changes)
    pairs, found = PAIR_RULES[rule](prompt_of, fidelity, alignment, limits)
    f, a = standardise(fidelity, prompt_of), standardise(alignment, prompt_of)
    for p in pairs:
        assert p.winner != p.loser and prompt_of[p.winner] == prompt_of[p.loser]
        assert (p.d_fidelity, p.d_alignment) == (f[p.winner] - f[p.loser], a[p.winner] - a[p.loser])
        assert rule not in ("angle_window", "pareto") or p.length >= limits.margin
    ends = [c for p in pairs for c in (p.winner, p.loser)]
    prompts = [int(prompt_of[p.winner]) for p in pairs]
    assert max(map(ends.count, ends), default=0) <= limits.max_uses
    assert prompts == sorted(prompts) and max(map(prompts.count, prompts), default=0) <= limits.max_pairs_per_prompt
    assert len({frozenset((p.winner, p.loser)) for p in pairs}) == len(pairs) == found.kept
    assert (
        found.possible == found.not_better + found.below_margin + found.over_uses + found.over_prompt_limit + found.kept
    )
    assert (found.window is not None) == (rule == "angle_window")
    assert read_yield({"round": 2, **to_json(found)}) == found


@pytest.mark.parametrize("rule", [name for name in PAIR_RULES if name != "random"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_the_order_of_candidates_changes_nothing(rule, seed):
    """With distinct scores the same candidates are paired in any order."""
    rng = np.random.default_rng(seed)
    prompt_of, fidelity, alignment = np.repeat(np.arange(3), 5), *rng.uniform(-1, 1, (2, 15))
    order = rng.permutation(15)
    limits = PairSettings(rule=rule, fidelity_weight=0.4)
    before, found = PAIR_RULES[rule](prompt_of, fidelity, alignment, limits)
    after, again = PAIR_RULES[rule](prompt_of[order], fidelity[order], alignment[order], limits)
    assert found == again
    assert indices(before) == [(order[w], order[el]) for w, el in indices(after)]


@every_rule
def test_every_rule_refuses_nan_and_single_candidates(rule):
    with pytest.raises(UserError, match="fidelity of candidate 1"):
        run_rule(PAIR_RULES[rule], [0, 0], [0, np.nan], [0, 0])
    with pytest.raises(UserError, match="candidates_per_prompt"):
        run_rule(PAIR_RULES[rule], [0, 1], [0, 1], [0, 1])


@pytest.mark.parametrize("rule", [name for name in PAIR_RULES if name != "random"])
def test_equal_candidates_make_no_pair(rule):
    pairs, found = run_rule(PAIR_RULES[rule], [0] * 3, [0.1] * 3, [0.3] * 3)
    assert pairs == [] and found.not_better == 3


@every_rule
def test_every_rule_cites_its_source(rule):
    assert "arXiv" in PAIR_RULES[rule].__doc__ or rule == "random"


# --- the automatic window ---

ARMS = ([0, 0, 1, 1], [0, 1, 0, 2], [0, 2, 0, 1])
"""Gains (fidelity, alignment): prompt 0 (1, 2), prompt 1 (2, 1). Equal spreads: angles 63.43 and 26.57 degrees."""


@pytest.mark.parametrize(
    ("steer", "pairs", "window"),
    [
        (0.0, 0, (0, 25)), (0.25, 0, (12.5, 42.5)), (0.5, 0, (30, 60)), (1.0, 0, (65, 90)),
        (0.0, 99, (0, 45)), (0.5, 99, (10, 80)), (1.0, 99, (45, 90)),
        (0.5, 1, (25, 65)), (0.0, 1, (0, 30)), (1.0, 1, (60, 90)), (0.0, 2, (0, 45)),
    ],
)  # fmt: skip
def test_the_auto_window_by_hand(steer, pairs, window):
    """Half-widths 15, 20, ...: at 45 degrees, 30..60 holds neither angle and 25..65 both.

    At 10 degrees, 0..30 is the first window with one of them.
    """
    limits = PairSettings(window="auto", steer=steer, min_pairs=pairs, margin=0.0)
    assert auto_window(*map(np.array, ARMS), limits) == pytest.approx(window)


def test_the_rule_uses_and_reports_the_auto_window():
    pairs, found = run_rule(
        PAIR_RULES["angle_window"], *ARMS, window="auto", min_pairs=1, angle_low=-90, angle_high=-80
    )
    assert indices(pairs) == [(1, 0), (3, 2)] and found.window == (25.0, 65.0)
    assert "0 outside the angle window 25..65 degrees" in found.sentence()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 40), st.integers(0, 2**31))
@settings(max_examples=50)
def test_the_auto_window_follows_steer_and_stays_between_the_axes(one, other, wanted, seed):
    rng = np.random.default_rng(seed)
    scores = np.repeat(np.arange(4), 4), rng.normal(size=16), rng.normal(size=16)
    windows = [
        auto_window(*scores, PairSettings(window="auto", steer=s, min_pairs=wanted)) for s in sorted((one, other))
    ]
    for low, high in windows:
        assert 0 <= low < high <= 90 and 25 - 1e-9 <= high - low <= 70 + 1e-9
    narrow, wide = (
        auto_window(*scores, PairSettings(window="auto", steer=one, min_pairs=n)) for n in (wanted, wanted + 10)
    )
    assert wide[0] <= narrow[0] and wide[1] >= narrow[1]


def test_reward_direction_by_hand():
    """Means 0 and .5, equal spreads: 1 / s'^2 is 4 and 16/9, so atan2(16/9, 4) = 23.96 degrees.

    Twice the spread of alignment: 41.63.
    """
    prompts, fidelity = np.zeros(4, int), np.array([-0.1, 0.1, -0.1, 0.1])
    alignment = np.array([0.4, 0.4, 0.6, 0.6])
    harmonic = PairSettings(rule="lambda_harmonic")
    assert reward_direction(prompts, fidelity, alignment, harmonic) == pytest.approx(23.96, abs=0.01)
    wide = np.array([0.3, 0.3, 0.7, 0.7])
    assert reward_direction(prompts, fidelity, wide, harmonic) == pytest.approx(41.63, abs=0.01)
    assert reward_direction(prompts, fidelity, wide, PairSettings(rule="weighted_sum")) == pytest.approx(45)
    third = PairSettings(rule="weighted_sum", fidelity_weight=1.0)
    assert reward_direction(prompts, fidelity, wide, third) == 0
    assert reward_direction(prompts, fidelity, wide, PairSettings(rule="angle_window")) is None
    assert (
        reward_direction(prompts, np.zeros(4), np.zeros(4), harmonic) is None
        and reward_direction(prompts[:0], [], [], harmonic) is None
    )


def test_pairs_of_the_harmonic_reward_point_along_its_gradient():
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(10), 12)
    fidelity, alignment = rng.normal(0.6, 0.05, 120), rng.normal(0.4, 0.1, 120)
    settings = PairSettings(rule="lambda_harmonic", margin=2.0)
    pairs, _ = run_rule(lambda_harmonic_pairs, prompts, fidelity, alignment, margin=2.0)
    way = np.radians(reward_direction(prompts, fidelity, alignment, settings))
    gains = [p.d_fidelity * np.cos(way) + p.d_alignment * np.sin(way) for p in pairs]
    assert len(gains) > 20 and min(gains) > 1.5


@pytest.mark.parametrize("rule", ["lambda_harmonic", "weighted_sum"])
def test_the_margin_applies_to_reward_of(rule):
    """Five prompts with six candidates: every pair gains at least the margin in `reward_of`.

    The largest difference of each prompt is a pair.
    """
    rng = np.random.default_rng(3)
    prompt_of, fidelity, alignment = np.repeat(np.arange(5), 6), *rng.uniform(-0.9, 0.9, (2, 30))
    settings = PairSettings(rule=rule, margin=1.0, fidelity_weight=0.3)
    reward = reward_of(prompt_of, fidelity, alignment, settings)
    pairs, _ = PAIR_RULES[rule](prompt_of, fidelity, alignment, settings)
    assert pairs and all(reward[p.winner] - reward[p.loser] >= 1.0 for p in pairs)
    for members in np.split(np.arange(30), 5):
        best, worst = members[reward[members].argmax()], members[reward[members].argmin()]
        assert (best, worst) in {(p.winner, p.loser) for p in pairs}


def test_a_rule_without_a_reward_has_no_reward_direction():
    scores = np.array([0.1, 0.5])
    assert reward_of(np.zeros(2, int), scores, scores, PairSettings(rule="angle_window")) is None
