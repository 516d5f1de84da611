"""Tests the report after a scorer was replaced by another of the same name: their scores are never compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loops import Mean, changed, make_loop

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.report.page import build_report, write_report
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.scoring.sets import score_set


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    loop = make_loop(tmp_path / "run", settings=changed(rounds=1))
    loop.go()
    loop.run.set_fact("settings", loop.settings.model_dump(mode="json"))
    return loop.run


def rescore_half(run: RunFolder, name: str) -> None:
    """Rescore half of a set by a changed scorer, as an interrupted rescoring leaves it."""
    first = [c.position for c in run.candidates(name)][:3]
    run.add_scores(name, "fidelity", "2", first, np.ones(3))


def test_evaluation_by_another_scorer_counts_as_unfinished(run: RunFolder) -> None:
    assert build_report(run)["evaluated_rounds"] == [0, 1]
    score_set(run, "evaluation_1", [Mean("fidelity", 1, fingerprint="2")])
    report = build_report(run)
    assert report["evaluated_rounds"] == [0] and "gain" not in report["fidelity"]
    assert any("after round 1" in s for s in report["distrust"])
    score_set(run, "evaluation_0", [Mean("fidelity", 1, fingerprint="2")])
    assert build_report(run)["evaluated_rounds"] == [0, 1]


def test_start_scored_by_two_scorers_is_refused(run: RunFolder) -> None:
    rescore_half(run, "evaluation_0")
    with pytest.raises(UserError, match=r"no finished fidelity scores of evaluation_0.*--resume"):
        write_report(run)


def test_candidates_scored_by_two_scorers_are_not_shown(run: RunFolder) -> None:
    assert "cloud_0" in {p.stem for p in written(run)}
    rescore_half(run, "round_0")
    assert "cloud_0" not in {p.stem for p in written(run)}


def written(run: RunFolder) -> list[Path]:
    """The report's PNG files, written again."""
    for old in (run.path / "report").glob("*.png"):
        old.unlink()
    write_report(run)
    return list((run.path / "report").glob("*.png"))
