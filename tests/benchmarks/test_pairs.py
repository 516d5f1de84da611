"""The pair benchmark's arithmetic, and a small run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dreambooth_dpo.benchmarks import pairs
from dreambooth_dpo.dpo_core.pairs.rules import PAIR_RULES


def test_scored_candidates_are_cosines_of_equally_many_a_prompt():
    prompt_of, fidelity, alignment = pairs.scored(7, 5)
    assert np.bincount(prompt_of).tolist() == [5] * 7
    assert max(np.abs(fidelity).max(), np.abs(alignment).max()) <= 1 and fidelity.std() > 0
    assert all(np.array_equal(a, b) for a, b in zip(pairs.scored(7, 5), (prompt_of, fidelity, alignment), strict=True))


@pytest.mark.parametrize("rule", PAIR_RULES)
def test_ten_thousand_candidates_stay_far_below_the_limits(rule):
    """A tenth of what is asked: 1,000 candidates of 100 prompts."""
    found = pairs.rule_cost(rule, 100, 10, times=1)
    assert found["candidates"] == 1000 and found["pairs"] > 50
    assert found["seconds"] < pairs.SECONDS and found["peak_bytes"] < pairs.BYTES / 10


def test_the_command_writes_table_json_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(pairs, "SIZES", (20, 40))
    monkeypatch.setattr(pairs, "PER_PROMPT", (3, 6))
    monkeypatch.setattr(
        sys, "argv", ["pairs", "--out", str(tmp_path), "--candidates", "100", "--round-candidates", "0", "--times", "1"]
    )
    pairs.main()
    found = json.loads((tmp_path / "pairs.json").read_text(encoding="utf-8"))
    assert [row["rule"] for row in found["rules"]] == list(PAIR_RULES) and set(found["growth"]) == set(PAIR_RULES)
    assert (tmp_path / "pairs.png").stat().st_size > 1000
    # Fewer candidates than the limits are for prove nothing.
    assert "NOT shown" in capsys.readouterr().out


@pytest.mark.slow
def test_a_round_timed_by_stage():
    found = pairs.round_shares(60)
    assert found["candidates"] == 60 and set(found["seconds"]) == {"sample", "score", "pairs", "train"}
    assert 0 < found["share_of_scoring_and_pairs"] < 1
