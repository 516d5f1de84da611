"""Tests what the report says of pictures to which a scorer gave no score."""

from __future__ import annotations

import numpy as np

from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.report.numbers import Evaluations, gains, means, unscored
from dreambooth_dpo.dpo_core.report.words import failed_guards, verdict

WHY = {"fidelity_2": "no face or several faces"}
SCORERS = {
    name: {"role": "reward", "title": title, "higher_is_better": True}
    for name, title in (
        ("fidelity", "Fidelity"),
        ("alignment", "Alignment"),
        ("fidelity_2", "Fidelity (2nd scorer)"),
    )
}
PROMPTS = 6


def evaluations(before: list[float], after: list[float]) -> Evaluations:
    """Two pictures of each of 6 prompts, with these scores by fidelity_2; by the others they rise from 0, 1 to 1, 2."""
    found = tuple(Candidate(i, i // 2, f"prompt {i // 2}", i, 0, i) for i in range(2 * PROMPTS))
    rise = np.tile([0.0, 1.0], PROMPTS)
    values = {(k, name): rise + k for k in (0, 1) for name in ("fidelity", "alignment")}
    values |= {(k, "fidelity_2"): np.tile(np.asarray(v, float), PROMPTS) for k, v in ((0, before), (1, after))}
    return Evaluations((0, 1), (), found, SCORERS, values, 1)


def test_shares_and_gains_by_hand() -> None:
    """One picture of each prompt loses its score: 0 to 50 %. The other one rises from 1 to 3."""
    found = evaluations([0, 1], [np.nan, 3])
    shares = unscored(found, WHY, 50)
    assert shares == {
        "fidelity_2": {"why": WHY["fidelity_2"], "images": 12, "before": 0, "after": 0.5, "verdict": "up"}
    }
    gain = gains(found, 50)["fidelity_2"]
    assert (gain["before"], gain["after"], gain["gain"], gain["images"], gain["prompts"]) == (1, 3, 2, 6, 6)
    numbers = {**gains(found, 50), "unscored": shares}
    assert failed_guards(numbers, SCORERS) == {"fidelity_2": "more pictures have no score by fidelity (2nd scorer)"}
    assert verdict(numbers, SCORERS)[1].endswith(
        ", but more pictures have no score by fidelity (2nd scorer) and no judge checked it."
    )


def test_fewer_pictures_without_a_score_are_no_loss() -> None:
    found = evaluations([np.nan, 1], [0, 1])
    shares = unscored(found, WHY, 50)
    assert shares["fidelity_2"]["verdict"] == "down"
    assert failed_guards({**gains(found, 50), "unscored": shares}, SCORERS) == {}


def test_a_scorer_without_a_picture_scored_both_times_is_left_out() -> None:
    found = evaluations([np.nan, 1], [1, np.nan])
    assert set(gains(found, 50)) == {"fidelity", "alignment"}
    assert [set(point) - {"round"} for point in means(found)] == [set(SCORERS)] * 2
    nothing = evaluations([np.nan, np.nan], [1, 2])
    assert [set(point) - {"round"} for point in means(nothing)] == [{"fidelity", "alignment"}, set(SCORERS)]
