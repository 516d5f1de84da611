"""The pair stage: pairs of a scored set and the facts that it stores in the run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loops import FakeModel

from dreambooth_dpo.dpo_core.pairs.build import NoPairs, build_pairs, check_pairs
from dreambooth_dpo.dpo_core.pairs.choose import read_yield
from dreambooth_dpo.dpo_core.progress import silent
from dreambooth_dpo.dpo_core.records import Candidate
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.picture_check import NothingToCompare
from dreambooth_dpo.dpo_core.settings import PairSettings
from dreambooth_dpo.dpo_core.training.dataset import pair_data

ARMS = ([0, 0, 1, 1], [0, 1, 0, 2], [0, 2, 0, 1])
"""Gains (fidelity, alignment): prompt 0 (1, 2), prompt 1 (2, 1). Equal spreads: angles 63.43 and 26.57 degrees."""


def make_run(path: Path) -> RunFolder:
    run = RunFolder(path)
    found = [Candidate(i, p, f"prompt {p}", i, 0, i) for i, p in enumerate(ARMS[0])]
    run.add_chunk("round_0", found, torch.zeros(4, 1, 2, 2), np.zeros((4, 8, 8, 3), np.uint8))
    for name, values in zip(("fidelity", "alignment"), ARMS[1:], strict=True):
        run.add_scores("round_0", name, "f", range(4), np.array(values) / 2)
    return run


def test_the_window_is_stored_with_the_pairs(tmp_path):
    run = make_run(tmp_path)
    for changes, window in (({}, [20, 70]), ({"window": "auto", "min_pairs": 1}, [25, 65]), ({"rule": "pareto"}, None)):
        found = build_pairs(run, "round_0", PairSettings(**{"rule": "angle_window", **changes}), "round_0")
        assert run.fact("window_round_0") == window
        assert read_yield(run.fact("yield_round_0")) == found and found.kept == 2


def test_without_pairs_the_error_names_the_rule_and_the_remedy(tmp_path):
    run = make_run(tmp_path)
    for changes, words in (
        ({"rule": "pareto"}, "no pair is better by the rule pareto: .*Lower the margin, take another rule, or sample"),
        ({"window": "auto"}, r"no pair fits the window 10\.\.80 degrees: .*Move steer"),
    ):
        assert (
            build_pairs(
                run, "round_0", PairSettings(**{"rule": "angle_window", "margin": 9.5, **changes}), "round_0"
            ).kept
            == 0
        )
        with pytest.raises(NoPairs, match=words):
            check_pairs(run, "round_0")
        with pytest.raises(NoPairs, match=words):
            pair_data(run, "round_0", "round_0", FakeModel())
    build_pairs(run, "round_0", PairSettings(), "round_0")
    check_pairs(run, "round_0")


def test_a_yield_with_missing_counts_is_none():
    assert read_yield({}) is None and read_yield({"possible": 3, "outside_window": 1}) is None


def test_a_scorer_that_varies_by_rounding_is_named_even_beside_another(tmp_path):
    """Divided by their own spread, differences of 1e-7 would be differences of standard deviations."""
    run = make_run(tmp_path)
    noise = np.asarray([0.7, 0.7 + 1e-7, 0.7 - 1e-7, 0.7])
    run.add_scores("round_0", "fidelity_2", "f", range(4), noise)
    with pytest.raises(NothingToCompare, match=r"fidelity scores .*by fidelity_2\).*which is rounding"):
        build_pairs(run, "round_0", PairSettings(), "round_0", fidelity=("fidelity", "fidelity_2"))
    run.add_scores("round_0", "fidelity", "f", range(4), noise)
    with pytest.raises(NothingToCompare, match=r"by fidelity\)"):
        build_pairs(run, "round_0", PairSettings(margin=0.0), "round_0")
    assert run.pairs("round_0") == []


def test_a_candidate_without_a_score_is_in_no_pair(tmp_path):
    """Of each prompt one pair is possible. The loser of prompt 0 has no score by fidelity_2: its pair is not."""
    run, scorers = make_run(tmp_path), (["fidelity", "fidelity_2"], "alignment")
    settings = PairSettings(rule="angle_window", angle_low=-90, angle_high=180, margin=0)
    run.add_scores("round_0", "fidelity_2", "f", range(4), np.asarray([0.1, 0.2, 0.1, 0.3]))
    whole = build_pairs(run, "round_0", settings, "round_0", silent, *scorers)
    assert (whole.kept, whole.unscored) == (2, 0) and "without a score" not in whole.sentence()
    run.add_scores("round_0", "fidelity_2", "f", [0], np.asarray([np.nan]))
    found = build_pairs(run, "round_0", settings, "round_0", silent, *scorers)
    assert [(p.winner, p.loser) for p in run.pairs("round_0")] == [(3, 2)]
    assert (found.possible, found.kept, found.unscored) == (1, 1, 1)
    assert (found.prompts, found.prompts_without_pair) == (2, 1)
    assert found.sentence().endswith("1 of 2 prompts gave none. 1 candidates without a score were left out.")
    assert read_yield(run.fact("yield_round_0")) == found


@pytest.mark.parametrize("rule", ["angle_window", "pareto", "lambda_harmonic", "weighted_sum", "random"])
def test_prompts_without_two_scored_candidates_are_nothing_to_compare(tmp_path, rule):
    run = make_run(tmp_path)
    run.add_scores("round_0", "fidelity_2", "f", range(4), np.asarray([np.nan, 0.2, 0.3, np.nan]))
    run.set_fact("unscored", {"fidelity_2": "no face or several faces"})
    with pytest.raises(NothingToCompare, match=r"2 of 4 .* no score \(no face or several faces, by fidelity_2\)"):
        build_pairs(run, "round_0", PairSettings(rule=rule), "p", silent, ["fidelity", "fidelity_2"], "alignment")
