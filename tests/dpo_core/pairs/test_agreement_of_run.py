"""Agreement from the scores and decisions in a run folder, and the command that prints it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, succeeds

from dreambooth_dpo.dpo_core.pairs.agreement_of_run import Basis, agreement, stored_decisions
from dreambooth_dpo.dpo_core.pairs.edits import Edits, Place, keep_decisions
from dreambooth_dpo.dpo_core.records import Candidate, Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import PairSettings

MARK, PROMPTS = "0123456789abcdef", 24


@pytest.fixture
def run(tmp_path: Path):
    """24 prompts of two candidates. Fidelity prefers the first by 0.2, alignment the second by 0.1."""
    members = [Candidate(i, i // 2, f"prompt {i // 2}", i, 0, i) for i in range(2 * PROMPTS)]
    with RunFolder(tmp_path / "run") as opened:
        pixels = np.zeros((len(members), 4, 4, 3), np.uint8)
        opened.add_chunk("candidates", members, torch.zeros(len(members), 1, 2, 2), pixels)
        places = list(range(2 * PROMPTS))
        for name, pair in (("fidelity_a", (0.5, 0.3)), ("alignment_a", (0.2, 0.3)), ("judge_fidelity_b", (0.1, 0.2))):
            opened.add_scores("candidates", name, "mark", places, np.asarray(pair * PROMPTS))
        opened.set_pairs("pairs", [Pair(2 * i, 2 * i + 1, 1.0, -1.0) for i in range(PROMPTS)])
        yield opened


def basis(**settings) -> Basis:
    titles = {"fidelity_a": "Fidelity", "alignment_a": "Alignment", "judge_fidelity_b": "Fidelity (judge)"}
    return Basis(
        set_name="candidates", pairs_name="pairs", settings=PairSettings(**settings), fidelity=("fidelity_a",),
        alignment=("alignment_a",), titles=titles,
    )  # fmt: skip


def decided(swapped: int) -> Edits:
    """All pairs decided, the first ones swapped."""
    ways = {f"{2 * i}-{2 * i + 1}": "swap" if i < swapped else "keep" for i in range(PROMPTS)}
    return Edits(fingerprint=MARK, pairs=ways)


@pytest.mark.parametrize("rule", ["weighted_sum", "angle_window"])
def test_shares_of_scorers_and_rule_and_the_weight_that_agrees(run: RunFolder, rule: str):
    """The person swaps 22 of 24 pairs: alignment and the judge agree in 22, fidelity and the rule in 2.

    Standardised, each pair differs by +2 in fidelity and -2 in alignment, so a weighted sum prefers the second
    candidate for every weight below 0.5, and the middle of 0..0.45 is 0.2.
    """
    found = agreement(run, decided(22), basis(rule=rule, fidelity_weight=0.6))
    assert {s.title: s.agreed for s in found.shares} == {"Fidelity": 2, "Alignment": 22, "Fidelity (judge)": 22}
    assert (found.rule.agreed, found.rule.of) == (2, 24)
    assert {s.title for s in found.better} == {"Alignment", "Fidelity (judge)"}
    if rule == "weighted_sum":
        assert found.weight.best == 0.2 and found.weight.recommended
    else:
        assert found.weight.rule == "lambda_harmonic" and not found.weight.used


def test_diversity_is_no_part_of_what_a_person_judges(run: RunFolder):
    """It is of a set of pictures, and a person compares two."""
    plain, varied = (agreement(run, decided(22), basis(rule="weighted_sum", diversity=d)) for d in (0.0, 0.5))
    assert (varied.rule, varied.weight, varied.shares) == (plain.rule, plain.weight, plain.shares)


def test_a_person_who_agrees_with_the_rule_gets_no_recommendation(run: RunFolder):
    found = agreement(run, decided(1), basis(rule="weighted_sum", fidelity_weight=0.6))
    assert found.rule.agreed == 23 and found.better == () and not found.weight.recommended


def test_several_scorers_of_an_axis_count_by_themselves_and_together(run: RunFolder):
    run.add_scores("candidates", "fidelity_2_c", "mark", range(48), np.asarray([0.4, 0.5] * 23 + [np.nan, 0.5]))
    given = basis(rule="pareto").model_copy(
        update={"fidelity": ("fidelity_a", "fidelity_2_c"), "titles": {"fidelity_2_c": "Fidelity (2nd scorer)"}}
    )
    found = {s.title: s for s in agreement(run, decided(22), given).shares}
    assert (found["Fidelity (2nd scorer)"].agreed, found["Fidelity (2nd scorer)"].of) == (22, 23)
    assert found["Fidelity (all its scorers)"].of == 23


def test_the_command_prints_what_the_node_says(run: RunFolder):
    keep_decisions(run, decided(22), Place("graph", "7"), basis(rule="weighted_sum").model_dump(mode="json"))
    keep_decisions(run, Edits(fingerprint="f" * 16, pairs={"0-1": "keep"}), Place("graph", "8"))
    assert [s.node for s in stored_decisions(run)] in (["7", "8"], ["8", "7"])
    said = succeeds("agreement", run.path)
    assert "node 7 of workflow graph, candidates:" in said and "- Fidelity (judge): 22 of 24 (92 %, 74 to 98)" in said
    assert "Recommended: Fidelity (judge) as the reward scorer" in said
    assert "1 decisions of an older version" in said


def test_the_command_refuses_a_folder_without_decisions(run: RunFolder, tmp_path: Path):
    assert "holds no decisions on pairs" in fails("agreement", run.path)
    assert "is not a run folder" in fails("agreement", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
