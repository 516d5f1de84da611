"""Tests early stopping on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.evaluation.stop_rule import (
    Interval,
    Standing,
    broken_guards,
    decide,
    gain_by_prompt,
    kept_words,
    standing,
)
from dreambooth_dpo.dpo_core.json_values import from_json, to_json
from dreambooth_dpo.dpo_core.settings import StopSettings

PROMPT_OF = np.asarray([0, 0, 1, 1])
SETTINGS = StopSettings(patience=2, diversity_loss=0.6)


def _round(number: int, low: float, broken: tuple[str, ...] = (), alarm: float = 0.0) -> Standing:
    return Standing(number, Interval(low + 0.2, low, low + 0.4), broken, alarm)


def _scores(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(v, float) for name, v in values.items()}


def test_gain_by_hand():
    """Fidelity within prompts is -1 and 1 around its mean: spread 1.

    It rises by 1 and 1 in the first prompt, by 3 and 3 in the second: gains 1 and 3. Alignment has spread 2 and rises
    by 1 everywhere: 0.5. Without a judge the combined gains are (1 + 0.5) / 2 = 0.75 and (3 + 0.5) / 2 = 1.75.
    """
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12])
    after = _scores(fidelity=[5, 7, 4, 6], alignment=[1, 5, 9, 13])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([0.75, 1.75])


@pytest.mark.parametrize(("judge", "share", "gain"), [(1, 0.5, 0.5), (0.25, 0.25, 0.21875), (-1, 0.5, -0.25)])
def test_reward_counts_as_far_as_the_judge_bears_it_out(judge: float, share: float, gain: float):
    """Reward fidelity +1 SD. Alignment does not change, so the combined gain is half of fidelity's.

    Judge +1, share 0.5: 0.5 + 0.5 = 1. Judge +0.25, share 0.25: the reward counts 2 * 0.25 = 0.5, so 0.75 * 0.5 + 0.25
    * 0.25 = 0.4375. Judge -1, share 0.5: the reward does not count, -0.5.
    """
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12], judge_fidelity=[0, 2, 0, 2])
    after = {**before, "fidelity": before["fidelity"] + 1, "judge_fidelity": before["judge_fidelity"] + judge}
    assert gain_by_prompt(before, after, PROMPT_OF, share) == pytest.approx([gain, gain])


def test_a_loss_of_the_reward_counts_whole():
    """Reward -1 SD, judge +1 SD, share 0.5: 0 on the axis."""
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12], judge_fidelity=[0, 2, 0, 2])
    after = {**before, "fidelity": before["fidelity"] - 1, "judge_fidelity": before["judge_fidelity"] + 1}
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([0, 0])


def test_two_scorers_of_an_axis_count_as_their_mean():
    """+1 SD and +3 SD give +2 on fidelity; with unchanged alignment the combined gain is 1."""
    before = _scores(fidelity=[0, 2, 0, 2], fidelity_2=[0, 2, 0, 2], alignment=[0, 2, 0, 2])
    after = _scores(fidelity=[1, 3, 1, 3], fidelity_2=[3, 5, 3, 5], alignment=[0, 2, 0, 2])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([1, 1])


def test_scores_without_spread_give_no_gain():
    before = _scores(fidelity=[1, 1, 1, 1], alignment=[1, 1, 1, 1])
    after = _scores(fidelity=[9, 9, 9, 9], alignment=[1, 1, 1, 1])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5).tolist() == [0, 0]


def test_falling_judge_fails_a_guard():
    """Every prompt falls by 1 SD: the interval is a point below 0."""
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], judge_fidelity=[0, 2, 0, 2])
    after = {**before, "judge_fidelity": before["judge_fidelity"] - 1}
    said = "the judge's fidelity fell while the reward's did not (-1.00"
    assert [words.startswith(said) for words in broken_guards(before, after, PROMPT_OF, SETTINGS, 200)] == [True]
    assert broken_guards(before, before, PROMPT_OF, SETTINGS, 200) == ()


def test_a_rise_of_one_axis_does_not_hide_a_judge_that_fell_on_the_other():
    """The judge's alignment rises by 2 SD and its fidelity falls by 1: in their mean it rose by 0.5."""
    before = {n: np.asarray([0.0, 2, 0, 2]) for n in ("fidelity", "alignment", "judge_fidelity", "judge_alignment")}
    changed = {"fidelity": 3, "alignment": 3, "judge_fidelity": -1, "judge_alignment": 2}
    after = {name: before[name] + by for name, by in changed.items()}
    (said,) = broken_guards(before, after, PROMPT_OF, SETTINGS, 200)
    assert said.startswith("the judge's fidelity fell while the reward's did not")


def test_a_trade_that_reward_and_judge_agree_on_fails_no_guard():
    """Fidelity falls by 1 SD by both, alignment rises by 2 by both: the judge's mean rose."""
    before = {n: np.asarray([0.0, 2, 0, 2]) for n in ("fidelity", "alignment", "judge_fidelity", "judge_alignment")}
    after = {name: values + (-1 if "fidelity" in name else 2) for name, values in before.items()}
    assert broken_guards(before, after, PROMPT_OF, SETTINGS, 200) == ()
    worse = {name: values - 1 for name, values in before.items()}
    assert broken_guards(before, worse, PROMPT_OF, SETTINGS, 200)[0].startswith("the judge fell (-1.00")


def test_copying_and_lost_diversity_fail_guards():
    """Copy-paste +0.3 exceeds the limit 0.1. Diversity 2 (1 above 1) may lose a share of 0.6: 1.5 passes, 1.2 fails."""
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], copy_paste=[0, 0, 0, 0], diversity=[2, 2, 2, 2])
    copied = {**before, "copy_paste": before["copy_paste"] + 0.3}
    assert "copy-paste +0.30" in broken_guards(before, copied, PROMPT_OF, SETTINGS, 200)[0]
    for now, count in ((1.5, 0), (1.2, 1)):
        alike = {**before, "diversity": np.full(4, now)}
        assert len(broken_guards(before, alike, PROMPT_OF, SETTINGS, 200)) == count


def test_colours_may_get_a_little_stronger():
    """The start's saturation is 0.2 and 0.4; both prompts rise by 5 %, within the limit of 10 %, or by 15 %. Where one
    prompt of two does not rise, the interval begins at 0.
    """
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], saturation=[0.2, 0.2, 0.4, 0.4])
    for factor, failed in ((1.05, False), (1.15, True), (0.8, False)):
        said = broken_guards(before, {**before, "saturation": before["saturation"] * factor}, PROMPT_OF, SETTINGS, 200)
        assert said == (("pictures became more saturated (saturation 0.300 to 0.345)",) if failed else ())
    uneven = {**before, "saturation": before["saturation"] * [1, 1, 1.6, 1.6]}
    assert broken_guards(before, uneven, PROMPT_OF, SETTINGS, 200) == ()
    off = SETTINGS.model_copy(update={"saturation_rise": 10.0})
    for grey in (before, {**before, "saturation": np.zeros(4)}):
        assert broken_guards(grey, {**before, "saturation": np.ones(4)}, PROMPT_OF, off, 200) == ()
    nearly_grey = {**before, "saturation": np.full(4, 0.01)}
    for now, failed in ((0.019, False), (0.1, True)):
        said = broken_guards(nearly_grey, {**before, "saturation": np.full(4, now)}, PROMPT_OF, SETTINGS, 200)
        assert len(said) == failed


def test_quality_may_fall_a_little():
    """PickScore is 20 and 21; both prompts fall alike: by 0.3 within the limit of 0.4 logits, by 0.5 beyond it."""
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], quality=[20, 20, 21, 21])
    for fall, failed in ((0.3, False), (0.5, True), (-1.0, False)):
        said = broken_guards(before, {**before, "quality": before["quality"] - fall}, PROMPT_OF, SETTINGS, 200)
        assert len(said) == failed and (not failed or said[0].startswith("the quality fell (-0.50"))
    uneven = {**before, "quality": before["quality"] - [0.2, 0.2, 2.0, 2.0]}  # the interval reaches up to -0.2
    assert broken_guards(before, uneven, PROMPT_OF, SETTINGS, 200) == ()


def test_standing_round_trips_through_json():
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12])
    after = _scores(fidelity=[5, 7, 4, 6], alignment=[1, 5, 9, 13])
    found = standing(3, before, after, PROMPT_OF, SETTINGS, 0.02, 200)
    assert found.gain.mean == pytest.approx(1.25) and found.round == 3 and found.winner_alarm == 0.02
    assert 0.75 <= found.gain.low <= found.gain.mean <= found.gain.high <= 1.75
    assert from_json(Standing, to_json(found)) == found


def test_without_standings_the_original_is_kept_and_the_loop_goes_on():
    decision = decide([], SETTINGS, 0.01)
    assert (decision.kept, decision.stop) == (0, False)


def test_highest_lower_bound_is_kept_and_patience_ends_the_loop():
    """Lower bounds 0.1, 0.5, 0.4, 0.3 and patience 2: goes on after round 3, stops after round 4, keeps round 2."""
    rounds = [_round(1, 0.1), _round(2, 0.5), _round(3, 0.4), _round(4, 0.3)]
    assert [decide(rounds[:n], SETTINGS, 0.01).stop for n in (1, 2, 3, 4)] == [False, False, False, True]
    last = decide(rounds, SETTINGS, 0.01)
    assert last.kept == 2 and "last 2 rounds brought no significant gain" in last.reason
    assert "Round 2 is kept" in kept_words(last, rounds) and "Stopped:" in kept_words(last, rounds)


def test_no_round_above_zero_keeps_the_original():
    rounds = [_round(1, -0.3), _round(2, -0.1)]
    decision = decide(rounds, SETTINGS, 0.01)
    assert (decision.kept, decision.best, decision.stop) == (0, 2, True)
    assert kept_words(decision, rounds).startswith("The original is kept: no round")


def test_failed_guard_stops_the_loop_and_its_round_is_not_kept():
    rounds = [_round(1, 0.1), _round(2, 0.9, ("the judge fell",))]
    decision = decide(rounds, SETTINGS, 0.01)
    assert (decision.kept, decision.best, decision.stop) == (1, 2, True) and "the judge fell" in decision.reason
    fallen = [_round(1, -0.3, ("the judge fell",))]
    assert kept_words(decide(fallen, SETTINGS, 0.01), fallen).startswith("The original is kept: no round shows")
    alone = decide(rounds[1:], SETTINGS, 0.01)
    assert alone.kept == 0 and "round 2 rose, but the judge fell" in kept_words(alone, rounds[1:])


def test_winner_error_above_its_warning_stops_the_loop():
    decision = decide([_round(1, 0.1), _round(2, 0.5, alarm=0.03)], SETTINGS, 0.01)
    assert decision.stop and decision.kept == 2 and "0.030 (warning at 0.01)" in decision.reason


def test_single_prompt_never_shows_a_gain():
    """Its interval is infinite: the lower bound is minus infinity, and the original is kept."""
    found = standing(
        1,
        _scores(fidelity=[0, 2], alignment=[0, 2]),
        _scores(fidelity=[9, 9], alignment=[9, 9]),
        np.zeros(2, int),
        SETTINGS,
        0,
        200,
    )
    assert decide([found], SETTINGS, 0.01).kept == 0


@given(st.lists(st.tuples(st.floats(-2, 2), st.booleans()), min_size=1, max_size=12), st.integers(1, 4))
def test_kept_round_has_the_highest_lower_bound_without_failed_guards(rounds: list[tuple[float, bool]], patience: int):
    """The kept round has no failed guard, a lower bound above 0, and no such round has a higher one.

    Without such a round the original is kept.
    """
    found = [_round(i + 1, low, ("x",) if broken else ()) for i, (low, broken) in enumerate(rounds)]
    decision = decide(found, StopSettings(patience=patience), 0.01)
    good = {s.round: s.gain.low for s in found if not s.broken and s.gain.low > 0}
    assert decision.kept == 0 if not good else good[decision.kept] == max(good.values())


def test_a_prompt_without_a_score_counts_by_the_other_scorers():
    """Spread 1 by each scorer. Fidelity +1 on both prompts; fidelity_2 +3 on prompt 0, no score on prompt 1.

    Axis: (1 + 3)/2 = 2 and 1; alignment 0; gain 1 and 0.5.
    """
    nan, prompt_of = np.nan, np.array([0, 0, 1, 1])
    before = _scores(fidelity=[-1, 1, -1, 1], fidelity_2=[-1, 1, nan, nan], alignment=[-1, 1, -1, 1])
    after = _scores(fidelity=[0, 2, 0, 2], fidelity_2=[2, 4, nan, 9], alignment=[-1, 1, -1, 1])
    np.testing.assert_allclose(gain_by_prompt(before, after, prompt_of, 0.5), [1, 0.5])
    assert standing(1, before, after, prompt_of, StopSettings(), 0.0, 50).broken == ()


def test_more_pictures_without_a_score_fail_a_guard():
    """One of two pictures of each prompt loses its score; the rest gains: a mean over the rest would hide that."""
    nan, prompt_of = np.nan, np.repeat(np.arange(6), 2)
    before = _scores(fidelity=[0, 1] * 6, fidelity_2=[0, 1] * 6, alignment=[0, 1] * 6)
    after = {**before, "fidelity_2": np.array([nan, 3] * 6)}
    (said,) = standing(1, before, after, prompt_of, StopSettings(), 0.0, 50).broken
    assert said == "more pictures have no score by fidelity_2 (0 % to 50 %)"
    assert standing(1, after, before, prompt_of, StopSettings(), 0.0, 50).broken == ()
    few = {**before, "fidelity_2": np.array([nan, 3] + [0, 1] * 5)}
    assert standing(1, before, few, prompt_of, StopSettings(), 0.0, 50).broken == ()
