"""When pairs are too few, and how many more candidates would do, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.pairs.advice import pairs_advice
from dreambooth_dpo.dpo_core.pairs.choose import PairYield
from dreambooth_dpo.dpo_core.settings import PairSettings

WIDE = {"max_pairs_per_prompt": 100, "max_uses": 100}


def found(kept: int, prompts: int = 10, over_uses: int = 0, over_prompt: int = 0) -> PairYield:
    """Prompts of 8 candidates: 28 possible pairs each."""
    rest = prompts * 28 - kept - over_uses - over_prompt
    return PairYield(prompts * 28, rest, 0, over_uses, over_prompt, kept, prompts, 0)


@pytest.mark.parametrize("kept", [48, 49, 280])
def test_enough_pairs_need_no_advice(kept):
    assert pairs_advice(found(kept), PairSettings(**WIDE), 8) is None


@pytest.mark.parametrize(
    ("kept", "needed", "candidates", "more"),
    [(24, 48, 12, 4), (47, 48, 9, 1), (1, 48, 53, 45), (24, 96, 16, 8), (12, 48, 16, 8)],
)
def test_candidates_by_hand(kept, needed, candidates, more):
    """24 of 48: twice 8 * 7 = 112 is wanted; 11 * 10 = 110 is short of it, 12 * 11 = 132 not. 1 of 48: 2688; 52 * 51 =
    2652, 53 * 52 = 2756.
    """
    said = pairs_advice(found(kept), PairSettings(min_pairs=needed, **WIDE), 8)
    assert said.startswith(f"Few pairs: {kept}, where {needed} or more are wanted")
    assert f"About {candidates} candidates per prompt ({more} more) would do" in said


def test_a_candidate_may_not_be_used_too_often():
    """One use each: 10 prompts need 96 ends for 48 pairs, 9.6 candidates; the share alone would ask for 9."""
    assert "About 10 candidates" in pairs_advice(found(47), PairSettings(max_uses=1, max_pairs_per_prompt=100), 8)


def test_limits_are_named_where_they_hold_pairs_back():
    assert "raise max_pairs_per_prompt to 5" in pairs_advice(found(30), PairSettings(), 8), (
        "10 prompts of 4 are 40 at most"
    )
    said = pairs_advice(found(30, over_uses=10, over_prompt=8), PairSettings(max_pairs_per_prompt=6), 8)
    assert "18 more pass the rule and are over the limits" in said and "max_uses" in said


def test_prompts_are_asked_for_where_candidates_would_be_too_many():
    """1 of 5000 from 1000 prompts: 8 * 7 * 5000 = 280000 needs 530 candidates a prompt, more than the 256 that may be
    drawn.
    """
    assert "About 5000000 prompts in place of 1000" in pairs_advice(
        found(1, 1000), PairSettings(min_pairs=5000, **WIDE), 8
    )
    assert "add prompts" in pairs_advice(found(0), PairSettings(**WIDE), 8)


@pytest.mark.parametrize(
    ("changes", "has", "lacks"),
    [
        ({"rule": "angle_window"}, "or widen the window or lower the margin", None),
        ({"rule": "angle_window", "window": "auto"}, "or lower the margin", "widen"),
        ({}, "or lower the margin", "widen"),
        ({"rule": "pareto"}, "or lower the margin", "widen"),
        ({"rule": "random"}, "would do.", "margin"),
    ],
)
def test_the_remedy_suits_the_rule(changes, has, lacks):
    said = pairs_advice(found(24), PairSettings(**WIDE, **changes), 8)
    assert has in said and (lacks is None or lacks not in said)


@given(
    st.integers(0, 200),
    st.integers(1, 40),
    st.integers(0, 60),
    st.integers(2, 256),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_advice_is_there_exactly_when_pairs_are_few(kept, prompts, over, candidates, limit, uses):
    limits = PairSettings(max_pairs_per_prompt=limit, max_uses=uses)
    said = pairs_advice(found(kept, prompts, over), limits, candidates)
    assert (said is None) == (kept >= limits.min_pairs)
    assert said is None or said.endswith(".")
