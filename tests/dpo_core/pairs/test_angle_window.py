"""The angle window: small cases worked out by hand, and property tests."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.json_values import to_json
from dreambooth_dpo.dpo_core.pairs.choose import angle_degrees
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES, angle_window_pairs
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.settings import PairSettings
from dreambooth_dpo.dpo_core.statistics import standardise

OPEN = {"margin": 0.0, "max_pairs_per_prompt": 100, "max_uses": 100}


def pairs_of(prompt_of, fidelity, alignment, **changes):
    return angle_window_pairs(
        np.array(prompt_of), np.array(fidelity, float), np.array(alignment, float), PairSettings(**{**OPEN, **changes})
    )


def indices(pairs: list[Pair]) -> list[tuple[int, int]]:
    return [(p.winner, p.loser) for p in pairs]


@st.composite
def rounds(draw):
    """Candidates of a few prompts with coarse scores (ties occur) and a window."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).filter(lambda s: max(s) > 1))
    n = sum(sizes)
    scores = st.lists(st.integers(-6, 6), min_size=n, max_size=n)
    prompt_of = draw(st.permutations(np.repeat(np.arange(len(sizes)), sizes).tolist()))
    low = draw(st.integers(-90, 170))
    window = PairSettings(
        angle_low=low,
        angle_high=draw(st.integers(low + 1, 180)),
        margin=draw(st.sampled_from([0.0, 0.5, 1.5])),
        max_pairs_per_prompt=draw(st.integers(1, 5)),
        max_uses=draw(st.integers(1, 3)),
    )
    return np.array(prompt_of), np.array(draw(scores), float), np.array(draw(scores), float), window


@pytest.mark.parametrize(
    ("d_fidelity", "d_alignment", "angle"),
    [(1, 0, 0), (1, 1, 45), (0, 1, 90), (-1, 1, 135), (-1, 0, 180), (0, -1, -90), (-1, -1, -135), (3**0.5, 1, 30)],
)
def test_angles_by_hand(d_fidelity, d_alignment, angle):
    assert float(angle_degrees(np.float64(d_alignment), np.float64(d_fidelity))) == pytest.approx(angle, abs=1e-12)
    assert Pair(0, 1, d_fidelity, d_alignment).angle == pytest.approx(angle, abs=1e-12)


def test_length_by_hand():
    assert Pair(0, 1, 3.0, -4.0).length == 5.0
    # (3 - 4) / sqrt 2 is a loss on balance; at 45 degrees gap and length agree: (1 + 1) / sqrt 2 = sqrt 2.
    assert Pair(0, 1, 3.0, -4.0).gap == pytest.approx(-0.7071068) and Pair(0, 1, 1.0, 1.0).gap == pytest.approx(
        Pair(0, 1, 1.0, 1.0).length
    )


def test_standardise_by_hand():
    """1, 2, 3: mean 2, population variance 2/3, so -1.224745, 0, 1.224745."""
    assert standardise(np.array([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1.224745, 0.0, 1.224745], abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3e-9])
def test_standardise_maps_equal_values_to_zero(value):
    assert standardise(np.full(7, value)).tolist() == [0.0] * 7


def test_standardise_keeps_small_but_real_differences():
    assert standardise(np.array([1e-14, 3e-14])).tolist() == pytest.approx([-1.0, 1.0])


def test_deviations_are_from_the_prompts_mean():
    """Prompts (0, 2) and (100, 102): deviations -1, 1, -1, 1, so the standard deviation is 1.

    Around a common mean it would be 50.0099.
    """
    values, prompts = np.array([0.0, 2.0, 100.0, 102.0]), np.array([0, 0, 1, 1])
    assert standardise(values, prompts).tolist() == [-1.0, 1.0, -1.0, 1.0]
    assert standardise(values).tolist() == pytest.approx([-1.019796, -0.979804, 0.979804, 1.019796], abs=1e-6)


def test_a_prompts_mean_score_does_not_change_angles():
    """Alignment of prompt 1 is 5 higher than that of prompt 0.

    Within each prompt both axes differ equally, so all angles are 45.
    """
    pairs, _ = pairs_of([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 5, 6])
    assert [p.angle for p in pairs] == pytest.approx([45.0, 45.0])


def test_the_spread_is_pooled_over_the_round():
    """Fidelities 0, 10, 4, 6: deviations 5, 5, 1, 1 from the prompts' means.

    Variance (25 + 25 + 1 + 1) / 4 = 13, standard deviation 3.605551.

    Prompt 0 differs by 10 / 3.605551 = 2.773501, prompt 1 by 2 / 3.605551 = 0.554700; per prompt both would be 2.
    """
    pairs, _ = pairs_of([0, 0, 1, 1], [0, 10, 4, 6], [0, 0, 0, 0], angle_low=-10, angle_high=10)
    assert indices(pairs) == [(1, 0), (3, 2)]
    assert [p.d_fidelity for p in pairs] == pytest.approx([2.773501, 0.554700], abs=1e-6)
    assert [p.d_alignment for p in pairs] == [0.0, 0.0]


def test_each_direction_of_improvement_by_hand():
    """Two candidates per prompt, scores 0 and 1: both axes have the same spread, so the angles are exact.

    Prompt 0: candidate 1 better in both (45). Prompt 1: candidate 3 better in fidelity only (0). Prompt 2: candidate 5
    better in alignment only (90). Prompt 3: candidate 7 better in fidelity, worse in alignment (-45; 135 for 6 over 7).
    """
    scores = ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 0, 0, 0, 1], [0, 1, 0, 0, 0, 1, 1, 0])

    def kept(low, high):
        return indices(pairs_of(*scores, angle_low=low, angle_high=high)[0])

    assert kept(20, 70) == [(1, 0)]
    assert kept(0, 30) == [(3, 2)]
    assert kept(60, 90) == [(5, 4)]
    assert kept(100, 170) == [(6, 7)]
    assert kept(-80, -20) == [(7, 6)]
    assert kept(0, 90) == [(1, 0), (3, 2), (5, 4)]


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(45, 70, True), (20, 45, True), (20, 44.999, False), (45.001, 70, False)]
)
def test_the_window_includes_its_borders(low, high, fits):
    """Scores 0 and 1 on both axes standardise to -1 and 1: the angle is 45 exactly."""
    pairs, found = pairs_of([0, 0], [0, 1], [0, 1], angle_low=low, angle_high=high)
    assert indices(pairs) == ([(1, 0)] if fits else [])
    assert found.not_better == (0 if fits else 1)


@pytest.mark.parametrize(("margin", "fits"), [(2.0, True), (2.0001, False)])
def test_the_margin_is_a_length_in_standard_deviations_and_includes_its_border(margin, fits):
    """Only fidelity differs, -1 and 1: length 2."""
    pairs, found = pairs_of([0, 0], [0, 1], [5, 5], angle_low=-10, angle_high=10, margin=margin)
    assert (len(pairs), found.below_margin) == ((1, 0) if fits else (0, 1))


def test_the_longest_pairs_are_selected_up_to_the_limit_per_prompt():
    """Fidelity 0, 1, 3: lengths in raw units 3 (2 over 0), 2 (2 over 1), 1 (1 over 0)."""
    scores = ([0, 0, 0], [0, 1, 3], [0, 0, 0])
    all_three, _ = pairs_of(*scores, angle_low=-10, angle_high=10)
    assert indices(all_three) == [(2, 0), (2, 1), (1, 0)]
    two, found = pairs_of(*scores, angle_low=-10, angle_high=10, max_pairs_per_prompt=2)
    assert indices(two) == [(2, 0), (2, 1)]
    assert (found.kept, found.over_prompt_limit, found.over_uses) == (2, 1, 0)


def test_a_candidate_is_used_no_more_than_allowed():
    """As above. With one use each, (2, 0) uses candidates 2 and 0, and both other pairs contain one of them."""
    pairs, found = pairs_of([0, 0, 0], [0, 1, 3], [0, 0, 0], angle_low=-10, angle_high=10, max_uses=1)
    assert indices(pairs) == [(2, 0)]
    assert (found.over_uses, found.over_prompt_limit) == (2, 0)


def test_ties_are_broken_by_candidate_order():
    """Candidates 1 and 2 both beat 0 by the same length; 1 comes first."""
    pairs, _ = pairs_of([0, 0, 0], [0, 1, 1], [0, 0, 0], angle_low=-10, angle_high=10, max_pairs_per_prompt=1)
    assert indices(pairs) == [(1, 0)]


def test_a_pair_counts_once_in_a_window_with_both_directions():
    """-90..180 contains both -45 (1 over 0) and 135 (0 over 1)."""
    pairs, found = pairs_of([0, 0], [0, 1], [1, 0], angle_low=-90, angle_high=180)
    assert indices(pairs) == [(0, 1)]
    assert (found.possible, found.kept, found.not_better) == (1, 1, 0)


def test_the_yield_by_hand():
    """Prompt 0: fidelity 0, 1, 2, so three possible pairs.

    Prompt 1: equal candidates, no direction. Prompt 2: a single candidate.
    """
    pairs, found = pairs_of(
        [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 1, 1], [0] * 6, angle_low=-10, angle_high=10, max_pairs_per_prompt=2
    )
    assert to_json(found) == {
        "possible": 4,
        "not_better": 1,
        "below_margin": 0,
        "over_uses": 0,
        "over_prompt_limit": 1,
        "kept": 2,
        "prompts": 3,
        "prompts_without_pair": 2,
        "window": [-10.0, 10.0],
        "unscored": 0,
        "not_near": 0,
    }
    assert len(pairs) == 2
    assert found.sentence().startswith("2 pairs from 4 possible: 1 outside the angle window -10..10 degrees")
    assert "2 of 3 prompts gave none" in found.sentence()


def test_prompts_may_be_interleaved_and_have_any_index():
    pairs, _ = pairs_of([7, 3, 7, 3], [0, 5, 5, 0], [0, 5, 5, 0], angle_low=20, angle_high=70)
    assert indices(pairs) == [(1, 3), (2, 0)]


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(2, 12))
def test_constant_scores_give_no_pair(fidelity, alignment, count):
    pairs, found = pairs_of([0] * count, [fidelity] * count, [alignment] * count, angle_low=-90, angle_high=180)
    assert pairs == [] and found.not_better == found.possible == count * (count - 1) // 2
    assert found.prompts_without_pair == 1


@given(rounds())
def test_every_possible_pair_is_accounted_for(drawn):
    prompt_of, fidelity, alignment, window = drawn
    pairs, found = angle_window_pairs(prompt_of, fidelity, alignment, window)
    counts = np.unique(prompt_of, return_counts=True)[1]
    assert found.possible == int((counts * (counts - 1) // 2).sum())
    assert (
        found.possible == found.not_better + found.below_margin + found.over_uses + found.over_prompt_limit + found.kept
    )
    assert found.kept == len(pairs) and found.prompts == len(counts)
    assert found.prompts_without_pair == len(counts) - len({int(prompt_of[p.winner]) for p in pairs})


@given(rounds())
def test_every_pair_satisfies_window_margin_and_limits(drawn):
    prompt_of, fidelity, alignment, window = drawn
    pairs, _ = angle_window_pairs(prompt_of, fidelity, alignment, window)
    f, a = standardise(fidelity, prompt_of), standardise(alignment, prompt_of)
    for p in pairs:
        assert p.winner != p.loser and prompt_of[p.winner] == prompt_of[p.loser]
        assert p.d_fidelity == f[p.winner] - f[p.loser] and p.d_alignment == a[p.winner] - a[p.loser]
        assert window.angle_low <= p.angle <= window.angle_high
        assert p.length >= window.margin and p.length > 0
    ends = [c for p in pairs for c in (p.winner, p.loser)]
    assert max(map(ends.count, ends), default=0) <= window.max_uses
    prompts = [int(prompt_of[p.winner]) for p in pairs]
    assert prompts == sorted(prompts) and max(map(prompts.count, prompts), default=0) <= window.max_pairs_per_prompt
    for one, other in itertools.pairwise(pairs):
        assert prompt_of[one.winner] != prompt_of[other.winner] or one.length >= other.length
    assert len({frozenset((p.winner, p.loser)) for p in pairs}) == len(pairs)


@given(st.integers(0, 2**31), st.integers(-90, 150), st.floats(0.01, 1000), st.floats(-100, 100))
@settings(max_examples=50)
def test_shifting_and_scaling_the_raw_scores_changes_no_pair(seed, low, scale, shift):
    """Scorers of other units give the same pairs.

    A value exactly on a border may fall on either side by rounding, so such cases are left out.
    """
    rng = np.random.default_rng(seed)
    prompt_of, fidelity, alignment = rng.integers(0, 3, 12), rng.normal(size=12), rng.normal(size=12)
    window = PairSettings(angle_low=low, angle_high=low + 30, margin=0.25)
    f, a = standardise(fidelity, prompt_of), standardise(alignment, prompt_of)
    winner, loser = np.nonzero((prompt_of[:, None] == prompt_of) & ~np.eye(12, dtype=bool))
    df, da = f[winner] - f[loser], a[winner] - a[loser]
    from_border = np.abs(angle_degrees(da, df)[:, None] - [low, low + 30]).min()
    assume(from_border > 1e-6 and np.abs(np.hypot(df, da) - 0.25).min() > 1e-6)
    before, _ = angle_window_pairs(prompt_of, fidelity, alignment, window)
    after, _ = angle_window_pairs(prompt_of, fidelity * scale + shift, alignment / scale - shift, window)
    assert indices(before) == indices(after)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", ["fidelity", "alignment"])
def test_a_score_that_is_not_finite_is_refused_by_axis_and_candidate(axis, bad):
    scores = {"fidelity": np.zeros(3), "alignment": np.zeros(3)}
    scores[axis][1] = bad
    with pytest.raises(UserError, match=f"{axis} of candidate 1"):
        angle_window_pairs(np.zeros(3, int), scores["fidelity"], scores["alignment"], PairSettings())


def test_one_candidate_per_prompt_is_refused():
    with pytest.raises(UserError, match="candidates_per_prompt"):
        pairs_of([0, 1, 2], [0, 1, 2], [0, 1, 2])


def test_no_candidate_at_all_is_refused():
    with pytest.raises(UserError, match="candidates_per_prompt"):
        pairs_of([], [], [])


def test_missing_scores_are_refused():
    with pytest.raises(UserError, match="2 alignment scores for 3 candidates"):
        pairs_of([0, 0, 0], [0, 1, 2], [0, 1])


def test_ten_thousand_candidates():
    rng = np.random.default_rng(0)
    prompt_of = np.repeat(np.arange(1000), 10)
    pairs, found = angle_window_pairs(prompt_of, rng.normal(size=10_000), rng.normal(size=10_000), PairSettings())
    assert found.possible == 45_000 and found.kept == len(pairs) > 1000


def test_every_rule_of_the_settings_is_implemented():
    assert set(get_args(PairSettings.model_fields["rule"].annotation)) == set(PAIR_RULES)
