"""Pairs per second by their quality: the best ways, the way chosen beforehand, and correlations of looks."""

from __future__ import annotations

import pytest
from sampling_records import COSTS, records

from dreambooth_dpo.benchmarks.sampling.frontier import (
    LEVELS,
    against_plain,
    correlations,
    figure,
    frontier,
    show_frontier,
)
from dreambooth_dpo.dpo_core.settings import PairSettings


def way(name: str, seconds: float, *points: tuple[int, int]) -> dict:
    """Pairs, and better ones, at margins 0.5, 0.75, ..."""
    return {"way": name, "seconds": seconds, "curve": [[0.5 + 0.25 * i, *p] for i, p in enumerate(points)]}


def test_the_frontier_by_hand():
    """Plain 5: 10 pairs a second at .5, 5 at .6; plain 9: 6 at .6, 2 at .7. Drafted: 8 at .7 of 1 second."""
    rows = [
        way("plain 5", 1.0, (10, 5), (5, 3)),
        way("plain 9", 2.0, (12, 8), (4, 3)),
        way("9 drafted in 3, margin 1", 1.0, (8, 6)),
    ]
    found = {f["quality"]: f for f in frontier(rows)}
    assert set(found) == {level for level in LEVELS if level <= 0.75}
    assert [found[q]["plain"]["pairs_per_s"] for q in (0.5, 0.6, 0.66, 0.7)] == [10.0, 6.0, 6.0, 2.0]
    assert found[0.7]["plain"] == {"way": "plain 9", "margin": 0.75, "pairs_per_s": 2.0}
    assert {f["drafted"]["pairs_per_s"] for f in found.values()} == {8.0}
    assert figure([*found.values()], "title").axes[0].get_title() == "title"


def test_perfect_drafts_are_compared_with_the_quickest_plain_way_as_good(capsys):
    """Drafts that tell all, at no cost, draw what stands in pairs alone: they can be no slower than the plain way of as
    many candidates.
    """
    concepts = [records(6, s) for s in range(3)]
    for one in concepts:
        for axis in ("fidelity", "alignment"):
            one[f"{axis}_draft_4"] = one[axis]
        one["right"] = (one["fidelity"] + one["alignment"] > 0).astype(float)
    found = against_plain(concepts, {**COSTS, "draft_4": 0.0, "decode": 0.0, "score": 0.0}, PairSettings())
    assert (
        found["ci95"][0] <= found["ratio"] <= found["ci95"][1]
        and found["ratio"] >= 1
        and found["plain"].startswith("plain ")
    )
    show_frontier([], found, "about")
    assert f"times the best plain way of at least that quality, {found['plain']}" in " ".join(
        capsys.readouterr().out.split()
    )
    dear = against_plain(concepts, {**COSTS, "draft_4": 1.0}, PairSettings())
    assert dear["ratio"] < 0.5 and dear["better"] == found["better"]
    assert against_plain(concepts[:1], COSTS, PairSettings())["ci95"] == [None, None]


def test_correlations_are_of_the_rules_reward():
    one = records(6)
    for axis in ("fidelity", "alignment"):
        one[f"{axis}_draft_4"], one[f"{axis}_draft_2"] = one[axis], -one[axis]
    found = correlations([one], PairSettings())
    assert set(found) == {"3", "4", "6", "draft_2", "draft_3", "draft_4"} and found["draft_4"] == pytest.approx(1)
    assert found["draft_2"] < -0.9 < found["3"] < 1
    with pytest.raises(SystemExit, match="has no reward"):
        correlations([one], PairSettings(rule="angle_window"))
