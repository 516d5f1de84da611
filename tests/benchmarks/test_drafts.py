"""The benchmark of drafted candidates in the loop: its variants, what it counts, and its arithmetic."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dreambooth_dpo.benchmarks import drafts
from dreambooth_dpo.benchmarks.common.concepts import EARLIER
from dreambooth_dpo.benchmarks.drafts import DEFAULT, DRAFTS, MEASURES, PEER, VARIANTS, quality, settings_of, summary
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.sampling.sets import plan


def test_variants_differ_in_candidates_and_margin_alone():
    for name in VARIANTS:
        found = settings_of(name)
        assert found.train == EARLIER.train and found.rounds == EARLIER.rounds and found.stop.rule == "last"
    assert settings_of(DEFAULT).sampling == EARLIER.sampling and settings_of(DEFAULT).pairs == EARLIER.pairs
    drafted, peer = settings_of(DRAFTS), settings_of(PEER)
    assert drafted.pairs == peer.pairs and drafted.sampling.draft_steps == 4
    assert drafted.sampling.model_copy(update={"draft_steps": 0}) == peer.sampling


def test_quality_by_hand(tmp_path: Path):
    """Two rounds of four pictures whose redness is the truth: 9 1 / 5 5.

    Pairs 0>1 and 1>0 of the first prompt, 2>3 of the other.
    """
    oracle = SimpleNamespace(name="oracle_all_right", score=lambda images, prompts: images[:, 0, 0, 0].astype(float))
    with RunFolder(tmp_path) as run:
        for r in (0, 1):
            images = np.zeros((4, 8, 8, 3), np.uint8)
            images[:, ..., 0] = np.array([9, 1, 5, 5])[:, None, None]
            run.add_chunk(f"round_{r}", plan(["a", "b"], 2, r, 0, 4), torch.zeros(4, 1, 2, 2), images)
            run.set_pairs(f"round_{r}", [Pair(0, 1, 1.0, 1.0), Pair(1, 0, 1.0, 1.0), Pair(2, 3, 1.0, 1.0)])
        loop = SimpleNamespace(run=run, judges=[oracle])
        assert quality(loop, 2) == {"pairs": 6, "better": 2, "drawn": 8}
        assert quality(loop, 1) == {"pairs": 3, "better": 1, "drawn": 4}


def found(pairs: int, better: int, drawing: float, truth: float) -> dict:
    return {
        "seconds": {"candidates": drawing, "pair": 0.0, "train": 5.0},
        "pairs": pairs,
        "better": better,
        "drawn": 2 * pairs,
        "rounds": 3,
        "told": [],
        "gain": dict.fromkeys(MEASURES, truth),
    }


RESULTS = {
    5: {DEFAULT: found(100, 60, 10.0, 0.3), PEER: found(100, 80, 20.0, 0.4), DRAFTS: found(90, 72, 12.0, 0.5)},
    6: {DEFAULT: found(100, 50, 10.0, 0.1), PEER: found(120, 90, 20.0, 0.2), DRAFTS: found(100, 75, 10.0, 0.2)},
}


def test_summary_by_hand():
    """Pairs a second: default 10 and 10, peer 5 and 6, drafts 7.5 and 10.

    To the peer 1.5 and 1.667, truth +.1 and 0.
    """
    table = summary(RESULTS)
    ours = table[DRAFTS]
    assert ours["pairs"] == 95
    assert (ours["pairs_per_s"], ours["better"]) == (pytest.approx(190 / 22), pytest.approx(147 / 190))
    rate = ours["to_peer"]["rate"]
    low, high = rate["ci95"]
    assert rate["mean"] == pytest.approx((1.5 + 10 / 6) / 2)
    assert 1.5 - 1e-9 <= low <= rate["mean"] <= high <= 10 / 6 + 1e-9
    assert ours["to_default"]["rate"]["mean"] == pytest.approx(0.875)
    assert ours["to_peer"]["truth"]["mean"] == pytest.approx(0.05)
    assert ours["gain"]["oracle_all_right"]["mean"] == pytest.approx(0.35)
    assert "to_peer" not in table[PEER] and "to_default" not in table[DEFAULT]
    assert summary({5: RESULTS[5]})[DRAFTS]["to_peer"]["rate"]["ci95"] == [None, None]


def test_the_command_takes_kept_results_and_writes_a_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for seed, by_name in RESULTS.items():
        for name, result in by_name.items():
            (tmp_path / f"concept_{seed}").mkdir(exist_ok=True)
            (tmp_path / f"concept_{seed}" / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    monkeypatch.setattr(
        sys, "argv", ["drafts", "--concepts", "5-6", "--variants", ";".join(RESULTS[5]), "--out", str(tmp_path)]
    )
    drafts.main()
    written = json.loads((tmp_path / "drafts.json").read_text(encoding="utf-8"))
    assert written["concepts"] == [5, 6] and written["summary"][DRAFTS]["pairs"] == 95
    assert "all rounds, concepts 5, 6" in capsys.readouterr().out


def test_a_variant_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sys, "argv", ["drafts", "--variants", "plain 99"])
    with pytest.raises(SystemExit):
        drafts.main()
    assert "no variant 'plain 99'; variants are plain 10; " in capsys.readouterr().err


@pytest.mark.slow
def test_a_variant_runs_its_rounds_and_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the toybox, small; slow: it personalizes a concept first."""
    small = settings_of("drafts 10")
    small = small.model_copy(update={"rounds": 1, "train": small.train.model_copy(update={"steps": 2})})
    monkeypatch.setattr(drafts, "settings_of", lambda name: small)
    result = drafts.run_variant(5, "drafts 10", tmp_path)
    assert result["rounds"] == 1 and 0 < result["drawn"] < 300 and 0 < result["better"] < result["pairs"]
    assert all(result["seconds"][p] > 0 for p in ("candidates", "pair", "train"))
    assert set(result["gain"]) == set(MEASURES)
    assert result["told"][0]["alignment"] > 0.5
