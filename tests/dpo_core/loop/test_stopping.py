"""Tests early stopping in the loop: which adapter is kept, where the loop stops, and that a resumed run agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loops import FakeModel, changed, difference, make_loop

from dreambooth_dpo.dpo_core.progress import silent
from dreambooth_dpo.dpo_core.report.page import write_report
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.run.same_run import check_same_run
from dreambooth_dpo.dpo_core.settings import LoopSettings

RULE = {"rule": "best", "patience": 2}


class FixedLevels:
    """A scorer that gives each set of held-out images a fixed level, by the order in which sets are scored."""

    fingerprint = "told"

    def __init__(self, name: str, levels: list[float]) -> None:
        self.name, self.levels, self.calls = name, levels, -1

    def score(self, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        held_out = len(images) == 6
        self.calls += held_out
        return np.arange(len(images)) % 3 + (self.levels[self.calls] if held_out else 0.0)


def _loop(folder: Path, levels: list[float], settings: LoopSettings, progress=silent):
    """Fidelity and alignment of fixed levels, each added to scores with spread sqrt(2/3) within prompts."""
    loop = make_loop(folder, settings=settings, progress=progress)
    scorers = [FixedLevels("fidelity", levels), FixedLevels("alignment", levels)]
    return type(loop)(loop.run, loop.model, loop.adapter, loop.prompts, scorers, [], settings, progress)


def test_best_round_is_kept_and_patience_ends_the_loop(tmp_path: Path) -> None:
    """Levels 0 (start), 1, 3, 2, 2: round 2 is kept, and the loop ends after two rounds without improvement.

    Eight rounds were asked for.
    """
    loop = _loop(tmp_path / "run", [0, 1, 3, 2, 2], changed(rounds=8, stop=RULE))
    assert loop.go() == 2
    assert loop.run.fact("rounds") == 4 and loop.run.load_state("adapter_5") is None
    assert difference(loop.adapter.state(), loop.run.load_state("adapter_2")[0]) == 0
    assert difference(loop.adapter.state(), loop.run.load_state("adapter_4")[0]) > 0
    kept = loop.run.fact("kept")
    assert (kept["kept"], kept["stop"]) == (2, True) and "Round 2 is kept" in kept["words"]
    assert [s["round"] for s in loop.run.fact("watch")] == [1, 2, 3, 4]
    report = write_report(loop.run)
    assert report["shown_round"] == 2 and "Round 2 is kept" in report["answer"]
    assert report["fidelity"]["gain"] == pytest.approx(3)
    assert any("on these same prompts" in s for s in report["distrust"])
    assert (loop.run.path / "report" / "watch.png").is_file()


def test_original_is_kept_without_a_gain(tmp_path: Path) -> None:
    loop = _loop(tmp_path / "run", [0, -1, -2], changed(rounds=5, stop=RULE))
    assert loop.go() == 0
    assert max(float(v.abs().max()) for k, v in loop.adapter.state().items() if k.endswith(".up")) == 0
    report = write_report(loop.run)
    assert report["status"] == "original" and report["headline"] == "No gain is kept: the LoRA changes nothing."
    assert "The numbers below are those of round 1, which was not kept." in report["answer"]


def test_run_interrupted_between_rounds_decides_the_same(tmp_path: Path) -> None:
    levels, settings = [0, 1, 3, 2, 2], changed(rounds=8, stop=RULE)
    whole = _loop(tmp_path / "whole", levels, settings)
    whole.go()

    def interrupt(stage: str, done: int, *_, **__) -> None:
        if (stage, done) == ("train round_2", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _loop(tmp_path / "broken", levels, settings, interrupt).go()
    resumed = _loop(tmp_path / "broken", levels[3:], settings)  # the sets up to round 2 are scored
    assert resumed.go() == 2
    assert resumed.run.fact("kept") == whole.run.fact("kept") and resumed.run.fact("watch") == whole.run.fact("watch")
    assert difference(resumed.adapter.state(), whole.adapter.state()) == 0


def test_rule_last_keeps_the_last_round(tmp_path: Path) -> None:
    loop = _loop(tmp_path / "run", [0, 1, 3, 2], changed(rounds=3))
    assert loop.go() == 3 and loop.run.fact("kept") is None and loop.run.fact("watch") is None


def test_without_every_round_only_the_last_round_is_measured(tmp_path: Path) -> None:
    settings = changed(rounds=3, stop=RULE, evaluation={"every_round": False})
    assert _loop(tmp_path / "up", [0, 2], settings).go() == 3
    assert _loop(tmp_path / "down", [0, -2], settings).go() == 0


def test_run_from_before_early_stopping_can_be_resumed(tmp_path: Path) -> None:
    """Its settings lack the new ones, which take their defaults."""
    settings = changed(stop={"rule": "best"}).model_dump(mode="json")
    old = {k: v for k, v in settings.items() if k != "stop"}
    run = RunFolder(tmp_path / "run")
    run.set_fact("described", {"settings": old, "model": FakeModel.fingerprint})
    check_same_run(run, {"settings": settings, "model": FakeModel.fingerprint}, resume=True)


def test_finished_run_can_be_extended_by_more_rounds(tmp_path: Path) -> None:
    """Two rounds, then two more in the same folder: the result is that of one run of four.

    The earlier rounds are not run again.
    """
    levels = [0, 1, 3, 4, 5]
    whole = _loop(tmp_path / "whole", levels, changed(rounds=4, stop=RULE))
    assert whole.go() == 4
    first = _loop(tmp_path / "run", levels, changed(rounds=2, stop=RULE))
    assert first.go() == 2
    more = _loop(tmp_path / "run", levels[3:], changed(rounds=4, stop=RULE))
    assert more.go() == 4
    assert (
        more.run.fact("watch") == whole.run.fact("watch")
        and difference(more.adapter.state(), whole.adapter.state()) == 0
    )
