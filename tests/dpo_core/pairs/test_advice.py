"""Advice on too few pairs, with the estimated numbers worked out by hand."""

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
    """24 of 48: n (n - 1) must reach 2 * 8 * 7 = 112; 11 * 10 = 110 is too few, 12 * 11 = 132 is enough.

    1 of 48: it must reach 2688; 52 * 51 = 2652, 53 * 52 = 2756.
    """
    said = pairs_advice(found(kept), PairSettings(min_pairs=needed, **WIDE), 8)
    assert said.startswith(f"Few pairs: {kept}, but min_pairs asks for {needed}.")
    assert f"Use about {candidates} candidates per prompt ({more} more)" in said


def test_the_estimate_respects_max_uses():
    """One use each: 48 pairs need 96 candidates, 9.6 for each of 10 prompts; the share of pairs alone would give 9."""
    assert "Use about 10 candidates" in pairs_advice(found(47), PairSettings(max_uses=1, max_pairs_per_prompt=100), 8)


def test_limits_are_named_when_they_discard_pairs():
    assert "raise max_pairs_per_prompt to 5" in pairs_advice(found(30), PairSettings(), 8), (
        "10 prompts with 4 pairs each are 40 at most"
    )
    said = pairs_advice(found(30, over_uses=10, over_prompt=8), PairSettings(max_pairs_per_prompt=6), 8)
    assert "18 more pass the rule but are over the limits" in said and "max_uses" in said


def test_more_prompts_are_advised_when_too_many_candidates_would_be_needed():
    """1 of 5000 from 1000 prompts: 8 * 7 * 5000 = 280000 needs 530 candidates per prompt; the limit is 256."""
    assert "Use about 5000000 prompts instead of 1000" in pairs_advice(
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
        ({"rule": "random"}, "more).", "margin"),
    ],
)
def test_the_remedy_fits_the_rule(changes, has, lacks):
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
def test_advice_exists_exactly_when_pairs_are_too_few(kept, prompts, over, candidates, limit, uses):
    limits = PairSettings(max_pairs_per_prompt=limit, max_uses=uses)
    said = pairs_advice(found(kept, prompts, over), limits, candidates)
    assert (said is None) == (kept >= limits.min_pairs)
    assert said is None or said.endswith(".")
