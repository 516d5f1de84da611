"""Pairs, quality and cost of every way of drawing."""

from __future__ import annotations

import numpy as np
import pytest
from sampling_records import BY_REWARD, COSTS, OPEN, records

from dreambooth_dpo.benchmarks.sampling.outcomes import QUALITIES, outcome, row, table
from dreambooth_dpo.dpo_core.settings import PairSettings


@pytest.mark.parametrize("settings", [OPEN, BY_REWARD])
def test_quality_by_hand(settings):
    """Three on the diagonal, right: the highest alone. Of the pairs 2>0, 2>1 and 1>0, two are better, none is worse."""
    scores, everyone = np.array([0.0, 0.1, 0.2]), np.ones(3, bool)
    found = {"prompt": np.zeros(3, int), "right": np.array([0.0, 0.0, 1.0]), "fidelity": scores, "alignment": scores}
    assert outcome(found, everyone, 0.0, settings).tolist() == [3, 2, 0, 0]
    found["right"] = np.array([1.0, 0.0, 0.0])
    assert outcome(found, everyone, 0.0, settings.model_copy(update={"max_pairs_per_prompt": 3})).tolist() == [
        3,
        0,
        2,
        1,
    ]
    got = row("all", [found, found], [everyone] * 2, 2.0, settings.model_copy(update={"max_uses": 1}))
    # One pair a concept, the longest: 1.0 a second, none better.
    assert (got["pairs"], got["pairs_per_s"], got["worse"]) == (2, 1.0, 1.0) and set(
        got["pairs_per_s_at"].values()
    ) == {0.0}


def test_pairs_are_those_of_the_settings_rule():
    """One is better on one axis and worse on the other: by the reward a pair, by the window none."""
    found = {
        "prompt": np.zeros(2, int),
        "right": np.ones(2),
        "fidelity": np.array([0.0, 0.5]),
        "alignment": np.array([0.1, 0.0]),
    }
    counts = [int(outcome(found, np.ones(2, bool), 0.0, s)[0]) for s in (BY_REWARD, OPEN)]
    assert counts == [1, 0]


def test_the_cost_of_drafting_is_drafts_looks_and_what_is_drawn_in_full():
    """Two concepts of 4 prompts x 10: 80 drafts of 0.04 and 80 looks of 0.015, then 0.115 for each in full."""
    rows = table([records(4, s) for s in (1, 2)], COSTS, PairSettings())
    found = next(r for r in rows if r["way"] == "10 drafted in 4, margin 1")
    assert found["seconds"] == pytest.approx(80 * 0.055 + 0.115 * found["pictures"]) and 0 < found["pictures"] <= 80


def test_the_table_compares_with_the_plain_way_of_the_nearest_cost():
    rows = table([records(4, s) for s in (1, 2)], COSTS, PairSettings())
    plain = {r["way"]: r for r in rows if r["way"].startswith("plain")}
    assert all(r["plain"] == name for name, r in plain.items())
    assert plain["plain 10"]["seconds"] == pytest.approx(80 * 0.115)
    # 14 begun at 4 of 12 steps and looked at, 7 gone on with: 112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015).
    half = next(r for r in rows if r["way"] == "14, half stopped at 4")
    assert half["seconds"] == pytest.approx(112 * (0.1 / 3 + 0.015) + 56 * (0.2 / 3 + 0.015)) and half["plain"] in plain
    assert plain["plain 3"]["at_cap"] == 0 and plain["plain 20"]["at_cap"] == 1
    for q in map(str, QUALITIES):
        at = [r["ratios_to_best"][q] for r in plain.values()]
        assert at == [None] * len(at) or max(at) == 1, "the best plain way is one of them"
    enough = next(r for r in rows if r["way"] == "until 3 of margin 1")
    assert enough["seconds"] == pytest.approx(0.115 * enough["pictures"]) and 32 <= enough["pictures"] <= 160
