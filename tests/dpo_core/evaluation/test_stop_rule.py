"""The stop rule, on numbers worked out by hand."""

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
from dreambooth_dpo.dpo_core.settings import StopSettings

PROMPT_OF = np.asarray([0, 0, 1, 1])
SETTINGS = StopSettings(patience=2, diversity_loss=0.6)


def _round(number: int, low: float, broken: tuple[str, ...] = (), alarm: float = 0.0) -> Standing:
    return Standing(number, Interval(low + 0.2, low, low + 0.4), broken, alarm)


def _scores(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(v, float) for name, v in values.items()}


def test_gain_by_hand():
    """Fidelity within prompts is -1 and 1 around its mean: spread 1. It rises by 1 and 3: 2 and 2 in the mean, so
    (1+1)/2=1 and (3+3)/2=3.

    Alignment has spread 2 and rises by 1 everywhere: 0.5. Without a judge the gains are (1 + 0.5) / 2 = 0.75 and (3 +
    0.5) / 2 = 1.75.
    """
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12])
    after = _scores(fidelity=[5, 7, 4, 6], alignment=[1, 5, 9, 13])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([0.75, 1.75])


def test_the_judge_has_its_share():
    """Reward fidelity +1 SD, judge fidelity -1 SD: share 0.5 makes 0, share 0.25 makes 0.5; alignment is unmoved, so
    half of that.
    """
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12], judge_fidelity=[0, 2, 0, 2])
    after = _scores(fidelity=[5, 7, 2, 4], alignment=[0, 4, 8, 12], judge_fidelity=[-1, 1, -1, 1])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([0, 0])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.25) == pytest.approx([0.25, 0.25])


def test_two_scorers_of_an_axis_count_as_their_mean():
    """+1 SD and +3 SD make +2 on fidelity, and 1 with an unmoved alignment."""
    before = _scores(fidelity=[0, 2, 0, 2], fidelity_2=[0, 2, 0, 2], alignment=[0, 2, 0, 2])
    after = _scores(fidelity=[1, 3, 1, 3], fidelity_2=[3, 5, 3, 5], alignment=[0, 2, 0, 2])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5) == pytest.approx([1, 1])


def test_a_score_without_spread_gives_no_gain():
    before = _scores(fidelity=[1, 1, 1, 1], alignment=[1, 1, 1, 1])
    after = _scores(fidelity=[9, 9, 9, 9], alignment=[1, 1, 1, 1])
    assert gain_by_prompt(before, after, PROMPT_OF, 0.5).tolist() == [0, 0]


def test_a_falling_judge_breaks_a_guard():
    """Every prompt falls by 1 SD: the interval is a point below 0."""
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], judge_fidelity=[0, 2, 0, 2])
    after = {**before, "judge_fidelity": before["judge_fidelity"] - 1}
    assert "the judge fell (-1.00" in broken_guards(before, after, PROMPT_OF, SETTINGS, 200)[0]
    assert broken_guards(before, before, PROMPT_OF, SETTINGS, 200) == ()


def test_copying_and_sameness_break_guards():
    """Copy-paste +0.3 over the limit 0.1; of diversity 2 (1 above 1) a share of 0.6 may go: 1.5 is fine, 1.2 is not."""
    before = _scores(fidelity=[0, 2, 0, 2], alignment=[0, 2, 0, 2], copy_paste=[0, 0, 0, 0], diversity=[2, 2, 2, 2])
    copied = {**before, "copy_paste": before["copy_paste"] + 0.3}
    assert "copy-paste +0.30" in broken_guards(before, copied, PROMPT_OF, SETTINGS, 200)[0]
    for now, count in ((1.5, 0), (1.2, 1)):
        alike = {**before, "diversity": np.full(4, now)}
        assert len(broken_guards(before, alike, PROMPT_OF, SETTINGS, 200)) == count


def test_a_standing_keeps_its_numbers_as_json():
    before = _scores(fidelity=[4, 6, 1, 3], alignment=[0, 4, 8, 12])
    after = _scores(fidelity=[5, 7, 4, 6], alignment=[1, 5, 9, 13])
    found = standing(3, before, after, PROMPT_OF, SETTINGS, 0.02, 200)
    assert found.gain.mean == pytest.approx(1.25) and found.round == 3 and found.winner_alarm == 0.02
    assert 0.75 <= found.gain.low <= found.gain.mean <= found.gain.high <= 1.75
    assert Standing.from_dict(found.as_dict()) == found


def test_nothing_measured_keeps_the_original_and_goes_on():
    decision = decide([], SETTINGS, 0.01)
    assert (decision.kept, decision.stop) == (0, False)


def test_the_surest_round_is_kept_and_waiting_ends():
    """Lower bounds 0.1, 0.5, 0.4, 0.3 and patience 2: after round 3 one waits, after round 4 it ends with round 2."""
    rounds = [_round(1, 0.1), _round(2, 0.5), _round(3, 0.4), _round(4, 0.3)]
    assert [decide(rounds[:n], SETTINGS, 0.01).stop for n in (1, 2, 3, 4)] == [False, False, False, True]
    last = decide(rounds, SETTINGS, 0.01)
    assert last.kept == 2 and "last 2 rounds brought no gain" in last.reason
    assert "Round 2 is kept" in kept_words(last, rounds) and "Stopped:" in kept_words(last, rounds)


def test_no_round_above_zero_keeps_the_original():
    rounds = [_round(1, -0.3), _round(2, -0.1)]
    decision = decide(rounds, SETTINGS, 0.01)
    assert (decision.kept, decision.best, decision.stop) == (0, 2, True)
    assert kept_words(decision, rounds).startswith("The original is kept: no round")


def test_a_broken_guard_ends_and_its_round_is_not_kept():
    rounds = [_round(1, 0.1), _round(2, 0.9, ("the judge fell",))]
    decision = decide(rounds, SETTINGS, 0.01)
    assert (decision.kept, decision.best, decision.stop) == (1, 2, True) and "the judge fell" in decision.reason
    fallen = [_round(1, -0.3, ("the judge fell",))]
    assert kept_words(decide(fallen, SETTINGS, 0.01), fallen).startswith("The original is kept: no round shows a gain")
    alone = decide(rounds[1:], SETTINGS, 0.01)
    assert alone.kept == 0 and "round 2 rose, but the judge fell" in kept_words(alone, rounds[1:])


def test_an_alarm_of_the_winners_error_ends():
    decision = decide([_round(1, 0.1), _round(2, 0.5, alarm=0.03)], SETTINGS, 0.01)
    assert decision.stop and decision.kept == 2 and "0.030 (warning 0.01)" in decision.reason


def test_a_single_prompt_is_never_enough():
    """Its interval is open: the lower bound is minus infinity, and the original stays."""
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
def test_what_is_kept_is_sound(rounds: list[tuple[float, bool]], patience: int):
    """Kept rounds are unbroken, above 0, and no unbroken round has a higher lower bound; without any it is the
    original.
    """
    found = [_round(i + 1, low, ("x",) if broken else ()) for i, (low, broken) in enumerate(rounds)]
    decision = decide(found, StopSettings(patience=patience), 0.01)
    good = {s.round: s.gain.low for s in found if not s.broken and s.gain.low > 0}
    assert decision.kept == 0 if not good else good[decision.kept] == max(good.values())
