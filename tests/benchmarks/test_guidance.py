"""The guidance benchmark's arithmetic."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.common.concepts import EARLIER
from dreambooth_dpo.benchmarks.guidance import DRAWN, MARKERS, METHODS, SCORES, STYLES, figure, mean_table, settings_of


def _row(method: str, candidates: float | None, looked_at: float, value: float) -> dict:
    return {"method": method, "candidates": candidates, "looked_at": looked_at, **dict.fromkeys(SCORES, value)}


def test_means_over_concepts_by_hand():
    """.2 and .4 make .3; the start has no candidates."""
    table = mean_table(
        {
            0: [_row("start", None, 1, 0.2), _row("raft", 4, 1, 0.6)],
            1: [_row("start", None, 1, 0.4), _row("raft", 4, 1, 0.8)],
        },
        "looked_at",
    )
    assert table["start", None, 1]["fidelity"] == pytest.approx(0.3)
    assert table["raft", 4, 1]["oracle_all_right"] == pytest.approx(0.7)
    assert [len(ax.lines) for ax in figure(table, [1]).axes] == [2, 2, 2]


@pytest.mark.parametrize("method", METHODS)
def test_methods_differ_in_what_they_name_and_the_guidance_alone(method: str):
    changed = settings_of(method, 4.0, 2.0)
    named = {group: set(values) for group, values in METHODS[method].items()}
    for group in ("sampling", "pairs", "train"):
        own, usual = (getattr(s, group).model_dump() for s in (changed, EARLIER))
        guidance = {"guidance"} if group == "sampling" else set()
        assert {k for k in own if own[k] != usual[k]} == named.get(group, set()) | guidance
    assert (changed.sampling.guidance, changed.evaluation.guidance) == (4.0, 2.0)
    assert changed.rounds == EARLIER.rounds and changed.stop.rule == "last"
    assert 1.0 in DRAWN[method] and set(DRAWN[method]) <= set(MARKERS) and method in STYLES


def test_rounds_stand_apart_from_evaluations():
    """Winners right .8 and .6 in round 1 make .7; rows of evaluations do not count, nor rows of rounds among
    evaluations.
    """
    results = {
        c: [_row("raft", 4, 1, 0.2), {"method": "raft", "candidates": 4, "round": 0, "winners oracle_body": v}]
        for c, v in ((0, 0.8), (1, 0.6))
    }
    assert mean_table(results, "round") == {("raft", 4, 0): {"winners oracle_body": pytest.approx(0.7)}}
    assert list(mean_table(results, "looked_at")) == [("raft", 4, 1)]
