"""Tests the strength sweep where the original is kept: the best round tried is swept, and the words say so."""

from __future__ import annotations

from pathlib import Path

from loops import changed, difference, make_loop

from dreambooth_dpo.dpo_core.evaluation.stop_rule import Decision
from dreambooth_dpo.dpo_core.evaluation.strength import Sweep
from dreambooth_dpo.dpo_core.json_values import from_json
from dreambooth_dpo.dpo_core.loop.rounds import Loop
from dreambooth_dpo.dpo_core.loop.strength_sweep import sweep
from dreambooth_dpo.dpo_core.report.page import write_report

SETTINGS = changed(rounds=2, strength={"strengths": [0.5, 1.0]}, sweep=True, evaluation={"every_round": True})


def without_gain(folder: Path, monkeypatch) -> Loop:
    """A loop in which early stopping keeps the original; round 1 was the best tried."""
    from dreambooth_dpo.dpo_core.evaluation import standings as watch
    from dreambooth_dpo.dpo_core.loop import rounds

    def turned_down(run, evaluated, scorers, settings) -> Decision:
        decision = Decision(0, 1, False, "")
        watch.keep_decision(run, watch.standings(run, evaluated, scorers, settings), decision)
        return decision

    monkeypatch.setattr(rounds, "watch", turned_down)
    loop = make_loop(
        folder, settings=SETTINGS.model_copy(update={"stop": SETTINGS.stop.model_copy(update={"rule": "best"})})
    )
    assert loop.go() == 0
    loop.run.set_fact("settings", loop.settings.model_dump(mode="json"))
    return loop


def test_best_round_tried_is_swept_and_the_original_stays_loaded(tmp_path: Path, monkeypatch) -> None:
    loop = without_gain(tmp_path / "run", monkeypatch)
    start, tried = (loop.run.load_state(f"adapter_{n}")[0] for n in (0, 1))
    assert difference(loop.adapter.state(), start) == 0
    found = from_json(Sweep, loop.run.fact("strength"))
    assert found.sets == ("evaluation_0", "strength_0.50", "evaluation_1")
    assert found.words.startswith("Of round 1, which was not kept (its LoRA is in the run folder, as tried_round_1): ")
    other = make_loop(tmp_path / "other", settings=loop.settings)
    other.adapter.load(tried)
    assert sweep(other).points == found.points


def test_report_shows_the_sweep_of_the_round_tried(tmp_path: Path, monkeypatch) -> None:
    loop = without_gain(tmp_path / "run", monkeypatch)
    report = write_report(loop.run)
    page = (loop.run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert report["status"] == "original" and "Of round 1, which was not kept" in page
    assert (loop.run.path / "report" / "strength.png").is_file()
