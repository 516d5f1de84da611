"""The guidance benchmark's arithmetic."""

from __future__ import annotations

import pytest

from dreambooth_dpo.benchmarks.guidance import DRAWN, METHODS, SCORES, _settings, mean_table
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS


def _row(method: str, candidates: float | None, looked_at: float, value: float) -> dict:
    return {"method": method, "candidates": candidates, "looked_at": looked_at, **dict.fromkeys(SCORES, value)}


def test_means_over_concepts_by_hand():
    """.2 and .4 make .3; the start has no candidates."""
    table = mean_table(
        {0: [_row("start", None, 1, 0.2), _row("raft", 4, 1, 0.6)], 1: [_row("start", None, 1, 0.4), _row("raft", 4, 1, 0.8)]}
    )
    assert table["start", None, 1]["fidelity"] == pytest.approx(0.3) and table["raft", 4, 1]["oracle_all_right"] == pytest.approx(0.7)


@pytest.mark.parametrize("method", METHODS)
def test_methods_differ_in_the_objective_and_the_guidance_alone(method: str):
    changed = _settings(TOY_SETTINGS, method, 4.0, 2.0)
    assert changed.sampling == TOY_SETTINGS.sampling.model_copy(update={"guidance": 4.0}) and changed.evaluation.guidance == 2.0
    assert changed.pairs == TOY_SETTINGS.pairs and changed.rounds == TOY_SETTINGS.rounds and 1.0 in DRAWN[method]
    assert changed.train.model_dump(exclude={"objective", "loser_guard"}) == TOY_SETTINGS.train.model_dump(
        exclude={"objective", "loser_guard"}
    )
