"""Runs on several concepts: their settings, their processes, and their cache."""

from __future__ import annotations

import operator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from dreambooth_dpo.benchmarks.common.concepts import (
    ALL_ROUNDS,
    by_concept,
    cached,
    changed,
    members,
    truth_of_candidates,
)
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.toybox.defaults import TOY_SETTINGS


def test_settings_change_in_what_is_named():
    found = changed(TOY_SETTINGS, 5, train={"steps": 7}, pairs={"margin": 2.0})
    assert (found.rounds, found.train.steps, found.pairs.margin) == (5, 7, 2.0)
    assert found.sampling == TOY_SETTINGS.sampling and changed(TOY_SETTINGS) == TOY_SETTINGS
    assert ALL_ROUNDS.stop.rule == "last" and ALL_ROUNDS.train == TOY_SETTINGS.train


def test_every_concept_has_a_process_and_results_are_in_order():
    assert list(by_concept(operator.mul, [3, 2], 2, 10).items()) == [(2, 20), (3, 30)]


def test_a_cached_result_is_not_computed_again(tmp_path: Path):
    results = iter([{"a": 1}])
    assert [cached(tmp_path / "a.json", lambda: next(results)) for _ in range(2)] == [{"a": 1}] * 2


def test_truth_is_read_off_the_candidates_of_a_set():
    """Images 0 1 2; the oracle gives the image's number times the number of prompts that it is asked about."""
    drawn = [SimpleNamespace(prompt="a")] * 3
    run = SimpleNamespace(images=lambda name, places: np.asarray(places), candidates=lambda name: drawn)
    oracle = SimpleNamespace(name="right", score=lambda images, prompts: images * len(prompts))
    assert truth_of_candidates(run, "round_0", [oracle])["right"].tolist() == [0, 3, 6]
    some = truth_of_candidates(run, "round_0", [oracle], [2, 1])["right"]
    assert np.isnan(some[0]) and some[1:].tolist() == [2, 4]


def test_winners_and_losers():
    assert members([Pair(0, 2, 1.0, 1.0), Pair(1, 2, 1.0, 1.0)]) == ([0, 1], [2, 2])
