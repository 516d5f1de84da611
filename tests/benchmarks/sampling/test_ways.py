"""Ways to draw fewer candidates: which are stopped, drafted, or not drawn at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling_records import BY_REWARD, OPEN, records

from dreambooth_dpo.benchmarks.sampling.records import PER_PROMPT, Records
from dreambooth_dpo.benchmarks.sampling.ways import (
    RULES,
    drafted,
    least,
    prospect_by_reward,
    prospect_in_window,
    prospects,
    stopped,
    until,
)
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES
from dreambooth_dpo.dpo_core.settings import PairSettings

# --- prospects of a pair ---


def test_the_middling_ones_have_the_least_prospect():
    """On the diagonal at 0, 4, 5 and 10: an improvement from 0 to 10 is 14.1 long at 45 degrees, 4 and 5 are near
    everyone's middle.
    """
    scores = np.array([0.0, 4.0, 5.0, 10.0])
    assert (
        least(prospect_in_window(scores, scores), 2).tolist() == least(prospect_by_reward(scores), 2).tolist() == [1, 2]
    )


def test_gaps_of_a_reward_by_hand():
    """0, 4, 6, 10: the sums of gaps are 20, 12, 12 and 20, over four. Of equal ones the first goes."""
    prospect = prospect_by_reward(np.array([0.0, 4.0, 6.0, 10.0]))
    assert prospect.tolist() == [5.0, 3.0, 3.0, 5.0] and least(prospect, 1).tolist() == [1]


@pytest.mark.parametrize("rule", RULES)
def test_a_prospect_depends_on_the_own_prompt_and_the_rule(rule):
    """Two prompts; the second's scores are those of the first, a trifle higher.

    The prospects are the same, and none is another rule's.
    """
    rng = np.random.default_rng(3)
    prompt_of, settings = np.repeat([0, 1], 5), OPEN.model_copy(update={"rule": rule})
    fidelity, alignment = (np.tile(rng.uniform(-0.01, 0.01, 5), 2) for _ in range(2))
    found = prospects(prompt_of, fidelity + np.repeat([0.0, 1e-6], 5), alignment, settings)
    assert found.shape == (10,) and found[:5] == pytest.approx(found[5:], rel=1e-3)
    others = [
        prospects(prompt_of, fidelity, alignment, OPEN.model_copy(update={"rule": other}))
        for other in RULES
        if other != rule
    ]
    assert not any(np.allclose(found, other, rtol=1e-6) for other in others)


@pytest.mark.parametrize("rule", sorted(set(PAIR_RULES) - set(RULES)))
def test_a_rule_without_prospects_is_refused(rule):
    with pytest.raises(SystemExit, match="has no prospects"):
        prospects(np.zeros(3, int), np.arange(3.0), np.arange(3.0), PairSettings(rule=rule))


def test_reach_by_hand():
    """From the first to the second 0 degrees and 10 long, 20 beside the window: reach 9.4. From the first to the third
    45 degrees and 7.07.

    Second over third is -45 degrees, 65 beside, third over second 135, as much: reach 3.0 both. Means over three
    (oneself among them): the first, as loser, 5.5; the second, as winner, 4.1; the third, as winner, 3.4.
    """
    fidelity, alignment = np.array([0.0, 10.0, 5.0]), np.array([0.0, 0.0, 5.0])
    assert prospect_in_window(fidelity, alignment) == pytest.approx([5.5, 4.1, 3.4], abs=0.1)
    assert least(prospect_in_window(fidelity, alignment), 2).tolist() == [1, 2]


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12),
    st.integers(0, 12),
    st.floats(-5, 5),
    st.randoms(),
)
def test_the_choice_does_not_hang_on_order_or_place(points, count, shift, rng):
    fidelity, alignment = np.array(points, float).T
    count = min(count, len(points))
    chosen = least(prospect_in_window(fidelity, alignment), count)
    assert len(set(chosen.tolist())) == count and all(0 <= i < len(points) for i in chosen)
    assert np.array_equal(least(prospect_in_window(fidelity * 2, alignment * 2), count), chosen)
    order = list(range(len(points)))
    rng.shuffle(order)
    again = least(prospect_in_window(fidelity[order], alignment[order]), count)
    if len(set(points)) == len(points) and count:
        # Equal prospects may be dropped in either order; what is kept must be worth the same.
        assert _prospect(fidelity, alignment, chosen) == pytest.approx(
            _prospect(fidelity, alignment, np.array(order)[again])
        )


def _prospect(fidelity, alignment, dropped) -> float:
    d_f, d_a = fidelity[:, None] - fidelity, alignment[:, None] - alignment
    angle = np.degrees(np.arctan2(d_a, d_f))
    reach = np.hypot(d_f, d_a) * np.cos(np.radians(np.clip(np.maximum(20 - angle, angle - 70), 0, 90)))
    return float(np.maximum(reach.mean(0), reach.mean(1))[dropped].sum())


# --- ways of drawing ---


@pytest.mark.parametrize("by_chance", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_half_of_every_prompt_goes_on(rule, by_chance):
    found, settings = records(), OPEN.model_copy(update={"rule": rule})
    kept = stopped(found, 7, 4, settings, by_chance)
    assert np.bincount(found["prompt"][kept]).tolist() == [4, 4, 4]
    assert not kept[np.arange(len(kept)) % PER_PROMPT >= 7].any()
    assert np.array_equal(kept, stopped(found, 7, 4, settings, by_chance))


def test_who_is_stopped_hangs_on_the_rule():
    """0 and 1 lie across the diagonal, 2 above and 3 below them on it.

    Rewards (harmonic means of 0.7 and 0.4, and so on) 0.509, 0.509, 0.55 and 0.45: the two across are the middling
    ones. To the window they reach, at 65 degrees beside it, 0.849 cos 65 = 0.36 over each other, and 2 has the least:
    0.64 over its partners, against 0.97 and 1.16.
    """
    found = {"prompt": np.zeros(PER_PROMPT, int)}
    for axis, values in (("fidelity", [0.4, -0.2, 0.1, -0.1]), ("alignment", [-0.2, 0.4, 0.1, -0.1])):
        found[f"{axis}_3"] = np.array(values + [0.0] * (PER_PROMPT - 4))
    reward, window = (np.nonzero(~stopped(found, 4, 3, s)[:4])[0].tolist() for s in (BY_REWARD, OPEN))
    assert reward == [0, 1]
    assert len(window) == 2 and 2 in window and 3 not in window


def lacking() -> Records:
    """Two prompts: the first's second candidate is better than its others on both axes, the other's are all equal."""
    found = {
        "prompt": np.repeat([0, 1], PER_PROMPT),
        "fidelity": np.zeros(2 * PER_PROMPT),
        "alignment": np.zeros(2 * PER_PROMPT),
    }
    found["fidelity"][1] = found["alignment"][1] = 1.0
    return found


@pytest.mark.parametrize("settings", [OPEN, BY_REWARD])
def test_a_further_wave_is_for_prompts_that_lack_pairs(settings):
    """Two in the first wave, one pair of the first prompt, none of the other; four have three pairs of the first
    prompt.
    """
    found = lacking()

    def drawn(*args) -> list[int]:
        return np.bincount(found["prompt"][until(found, *args)]).tolist()

    assert drawn(2, 1, settings, 4) == [2, 4]
    assert drawn(2, 2, settings, 4) == [4, 4]
    assert drawn(2, 2, settings) == [4, PER_PROMPT]
    assert drawn(3, 99, settings, 7) == [7, 7]


def test_drafts_in_pairs_are_drawn_in_full_and_no_others():
    """Rewards of the drafts 4, 2, 1, 3 of one prompt and no other that differs: with one pair a prompt first over third
    go on.

    The fifth, whose draft is better yet, is not among the first four.
    """
    found = {"prompt": np.zeros(PER_PROMPT, int)}
    for axis in ("fidelity", "alignment"):
        found[f"{axis}_draft_3"] = np.array([0.4, 0.2, 0.1, 0.3, 0.5] + [0.0] * (PER_PROMPT - 5))
    one = PairSettings(margin=0.0, max_pairs_per_prompt=1, max_uses=1)
    assert np.nonzero(drafted(found, 4, 3, one))[0].tolist() == [0, 2]
    assert np.nonzero(drafted(found, 4, 3, one.model_copy(update={"max_pairs_per_prompt": 2})))[0].tolist() == [
        0,
        1,
        2,
        3,
    ]
