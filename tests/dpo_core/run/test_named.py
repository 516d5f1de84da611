"""A run folder of the nodes, read under the names of a headless run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.named import LoopNames, NamedRun, keep_names, read_names

NAMES = LoopNames(
    sets={"evaluation_0": "evaluation_aa", "round_0": "candidates_bb"},
    scorers={"fidelity": "fidelity_f00d"},
    pairs={"round_0": "candidates_bb_pairs_cc"},
    trainings=("dd",),
    facts={"rounds": 1, "kept": {"kept": 1}},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunFolder(tmp_path / "run") as run:
        run.add_scores("evaluation_aa", "fidelity_f00d", "print", [0, 1], [0.25, 0.5])
        run.set_pairs("candidates_bb_pairs_cc", [Pair(1, 0, 0.5, 1.0)])
        run.set_fact("yield_candidates_bb_pairs_cc", {"pairs": 1})
        run.set_fact("told_candidates_bb", {"sentence": "drafts"})
        run.set_fact("rounds", 9)  # of another loop in the folder
        with RunFolder(run.path / "training" / "dd") as inner:
            inner.add_training(0, [{"step": 0, "loss": 0.7}])
        keep_names(run, NAMES)
    return tmp_path / "run"


def test_sets_scorers_pairs_trainings_and_facts_have_their_headless_names(folder: Path) -> None:
    with NamedRun(folder) as run:
        assert run.scores("evaluation_0", "fidelity") == {0: 0.25, 1: 0.5}
        assert run.score_marks("evaluation_0", "fidelity") == {"print"}
        assert run.image_path("round_0", 3) == folder / "candidates_bb" / "images" / "00003.png"
        assert [(pair.winner, pair.loser) for pair in run.pairs("round_0")] == [(1, 0)]
        assert run.training(0)[0]["loss"] == 0.7 and run.training(1) == []
        assert run.fact("yield_round_0") == {"pairs": 1} and run.fact("told_round_0") == {"sentence": "drafts"}
        assert run.fact("rounds") == 1, "that of this loop"
        assert run.fact("yield_round_1") is None and run.fact("strength") is None
        assert run.names.at > 1.7e9


def test_the_loop_that_was_measured_last_is_the_one(folder: Path) -> None:
    with RunFolder(folder) as run:
        keep_names(run, LoopNames({}, {}, {}, (), {"rounds": 2}))
        assert read_names(run).facts == {"rounds": 2}


def test_a_folder_without_a_measured_round_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        assert read_names(run) is None
    with pytest.raises(UserError, match="holds no measured round.*Run DPO Rounds with keep = best"):
        NamedRun(tmp_path / "run")
