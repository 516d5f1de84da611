"""The concept benchmark's arithmetic, and that its variants are fair."""

import pytest

from dreambooth_dpo.benchmarks.concepts import DETAILS, SCORES, difference, parse_numbers, summarise, variants
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS


def _gains(value: float) -> dict:
    return {"gains": {s: {"before": 0.2, "after": 0.2 + value, "gain": value} for s in (*SCORES, *DETAILS)}}


def test_numbers_and_ranges():
    assert parse_numbers("0-4,7") == [0, 1, 2, 3, 4, 7]
    assert parse_numbers("3") == [3]


def test_one_long_round_spends_as_many_steps_and_candidates_as_the_default():
    table = variants(TOY_SETTINGS)
    default, long = table["window_20_70"], table["one_long_round"]
    assert default.rounds * default.train.steps == long.rounds * long.train.steps
    assert default.rounds * default.sampling.candidates_per_prompt == long.rounds * long.sampling.candidates_per_prompt
    assert long.rounds == 1 and default.pairs.angle_low == 20 and default.pairs.angle_high == 70


def test_windows_differ_in_their_angles_alone():
    table = variants(TOY_SETTINGS)
    assert {s.pairs.rule for s in table.values()} == {"angle_window"}
    for name in ("window_0_30", "window_60_90"):
        assert table[name].model_dump(exclude={"pairs"}) == table["window_20_70"].model_dump(exclude={"pairs"})


def test_mean_over_concepts_by_hand():
    """Gains 0.1, 0.3, -0.1: mean 0.1, two of three up; the bootstrap's interval lies between the smallest and the
    largest.
    """
    results = {i: {"a": _gains(v)} for i, v in enumerate((0.1, 0.3, -0.1))}
    summary = summarise(results, "a")["fidelity"]
    assert summary["gain"] == pytest.approx(0.1) and summary["concepts_up"] == 2 and summary["concepts"] == 3
    low, high = summary["ci95"]
    assert -0.1 - 1e-9 <= low < 0.1 < high <= 0.3 + 1e-9


def test_difference_is_paired_by_concept():
    """0.3-0.1 and 0.1-0.2: mean 0.05."""
    results = {0: {"a": _gains(0.3), "b": _gains(0.1)}, 1: {"a": _gains(0.1), "b": _gains(0.2)}}
    assert difference(results, "a", "b", "alignment")["difference"] == pytest.approx(0.05)
