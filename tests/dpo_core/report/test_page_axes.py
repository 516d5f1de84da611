"""Tests the report where several scorers reward an axis: its answer uses all of them, as early stopping does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loops import PROMPTS, FakeModel, Mean, changed

from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.report.distrust import distrust
from dreambooth_dpo.dpo_core.report.page import build_report, write_report
from dreambooth_dpo.dpo_core.report.words import answer
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.training.adapter import Adapter

SHAPES = {"up": (0.1, [0.05, 0.15]), "down": (-0.1, [-0.15, -0.05]), "unclear": (0.0, [-0.05, 0.05])}
SCORERS = {
    "fidelity": {"role": "reward", "title": "Fidelity", "higher_is_better": True},
    "fidelity_2": {"role": "reward", "title": "Fidelity (2nd scorer)", "higher_is_better": True},
    "alignment": {"role": "reward", "title": "Alignment", "higher_is_better": True},
}


def gain(verdict: str) -> dict:
    change, ci95 = SHAPES[verdict]
    return {
        "before": 0.5,
        "after": 0.5 + change,
        "gain": change,
        "ci95": ci95,
        "images": 120,
        "prompts": 20,
        "verdict": verdict,
    }


def numbers(first: str, second: str, both: str) -> dict:
    """Verdicts of the two scorers of fidelity and of both together; alignment shows no change."""
    change, ci95 = SHAPES[both]
    joint = {"scorers": ["fidelity", "fidelity_2"], "gain": change, "ci95": ci95, "verdict": both}
    found = {
        "fidelity": gain(first),
        "fidelity_2": gain(second),
        "alignment": gain("unclear"),
        "axes": {"fidelity": joint},
    }
    return {**found, "training": {"steps": [], "warnings": []}, "evaluated_rounds": [0, 1], "rounds": 1, "pairs": []}


@pytest.mark.parametrize(
    ("first", "second", "both", "status"),
    [
        ("up", "down", "unclear", "none"),
        ("up", "down", "down", "worse"),
        ("unclear", "up", "up", "better"),
        ("up", "up", "up", "better"),
    ],
)
def test_answer_uses_all_scorers_of_an_axis(first: str, second: str, both: str, status: str) -> None:
    found = answer(numbers(first, second, both), SCORERS)
    assert found.status == status
    assert "fidelity (2nd scorer) 0.500 to " in found.sentences[0]
    change = SHAPES[both][0]
    assert f"in early stopping: fidelity {change:+.3f} (95 % interval" in found.sentences[1]


def test_scorer_that_fell_while_its_axis_rose_is_reported() -> None:
    told = distrust(numbers("up", "down", "up"), SCORERS, {})
    assert any(s.startswith("Fidelity rose over its scorers, but fidelity (2nd scorer) fell") for s in told)
    assert not any("over its scorers" in s for s in distrust(numbers("up", "up", "up"), SCORERS, {}))


def two_scorers(path: Path) -> RunFolder:
    """A run scored by hand with two fidelity scorers whose mean gain is -0.5 standard deviations.

    fidelity rises by half a standard deviation of the start, fidelity_2 falls by one and a half; alignment stays.
    Spread within prompts: 0.1 of fidelity, 0.2 of fidelity_2.
    """
    settings, model = changed(rounds=1), FakeModel()
    rewards = [Mean("fidelity", 0), Mean("alignment", 2), Mean("fidelity_2", 1)]
    loop = Loop(RunFolder(path), model, Adapter(model.denoiser, settings.adapter), PROMPTS, rewards, [], settings)
    loop.run.set_fact("scorers", SCORERS)
    for name in ("evaluation_0", "evaluation_1"):
        loop.held_out(4).measure(loop.run, {name: loop.adapted_model()})
        places = [c.position for c in loop.run.candidates(name)]
        sides, after = np.tile([-1.0, 1, -1, 1], 2), float(name == "evaluation_1")
        for scorer, spread, moved in (("fidelity", 0.1, 0.05), ("fidelity_2", 0.2, -0.3), ("alignment", 0.1, 0.0)):
            loop.run.add_scores(name, scorer, "1", places, 0.5 + spread * sides + moved * after)
    loop.run.set_fact("rounds", 1)
    return loop.run


def test_joint_gain_equals_that_of_early_stopping(tmp_path: Path) -> None:
    run = two_scorers(tmp_path / "run")
    report = write_report(run)
    joint = report["axes"]["fidelity"]
    assert joint["scorers"] == ["fidelity", "fidelity_2"] and joint["gain"] == pytest.approx(-0.5)
    assert joint["ci95"] == pytest.approx([-0.5, -0.5]) and joint["verdict"] == "down"
    assert report["fidelity"]["verdict"] == "up" and list(report["axes"]) == ["fidelity"]
    assert report["status"] == "worse" and report["headline"] == "It got worse: fidelity fell."
    page = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count('<div class="soft">Fidelity (2nd scorer)</div>') == 1, "it has no tile of its own"
    assert "Of an axis with several scorers, the first is shown" in page


def test_axis_with_one_scorer_has_no_joint_gain(tmp_path: Path) -> None:
    run = two_scorers(tmp_path / "run")
    run.set_fact("scorers", {n: s for n, s in SCORERS.items() if n != "fidelity_2"})
    report = build_report(run)
    assert report["axes"] == {} and report["status"] == "better" and "standard deviations" not in report["answer"]
