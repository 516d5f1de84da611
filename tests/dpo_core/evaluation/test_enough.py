"""Comparisons that could never show a gain are refused before their pictures are drawn, and reports survive them."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import loops
import numpy as np
import pytest
from loops import FakeModel, changed, make_loop

from dreambooth_dpo.dpo_core.concept import Concept
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.evaluation.enough import check_enough
from dreambooth_dpo.dpo_core.json_values import finite
from dreambooth_dpo.dpo_core.loop.facts import keep_facts
from dreambooth_dpo.dpo_core.prompts import PromptSet
from dreambooth_dpo.dpo_core.report.page import write_report
from dreambooth_dpo.dpo_core.run.folder import RunFolder

ONE = PromptSet(("a photo of a sks robot", "a sks robot on sand"), ("a sks robot on snow",))
ABOUT = {name: ("reward", name, True) for name in ("fidelity", "alignment", "judge_fidelity")}


@pytest.fixture
def one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "PROMPTS", ONE)


def test_two_prompts_and_two_seeds_are_enough():
    check_enough(2, 2, "stop.rule: best")
    with pytest.raises(UserError, match=r"only 1 held-out prompt, .*Write at least five prompts.*, or set x\."):
        check_enough(1, 6, "stop.rule: best", "set x")
    with pytest.raises(UserError, match=r"seeds_per_prompt is 1, and a single picture has no spread"):
        check_enough(9, 1, "stop.rule: best")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stop": {"rule": "best"}}, "stop.rule: best judges by the interval .* only 1 held-out prompt"),
        ({"sweep": True}, "sweep: true judges"),
    ],
)
def test_one_held_out_prompt_is_refused_before_anything_is_drawn(tmp_path: Path, one_prompt, change, said):
    model = FakeModel()
    with pytest.raises(UserError, match=said):
        make_loop(tmp_path, model, changed(**change)).go()
    assert model.batches == []


def test_one_picture_of_each_prompt_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="seeds_per_prompt is 1"):
        make_loop(tmp_path, settings=changed(stop={"rule": "best"}, evaluation={"seeds_per_prompt": 1})).go()


def _begun(folder: Path, **change: object):
    """A loop of one held-out prompt with rule best, in a folder where an older version drew the start already."""
    make_loop(folder, settings=changed(**change)).evaluate(0)
    loop = make_loop(folder, settings=changed(**change))
    photos = np.zeros((1, 8, 8, 3), np.uint8)
    keep_facts(loop, {"identifier": "sks", "class_noun": "robot"}, Concept("sks", "robot", photos), ABOUT)
    return loop


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_run_that_has_begun_is_finished_and_reported(tmp_path: Path, one_prompt, seeds: int):
    """With one prompt (and one seed) the original is kept; no number of the report is infinite."""
    loop = _begun(tmp_path, rounds=1, stop={"rule": "best"}, sweep=True, evaluation={"seeds_per_prompt": seeds})
    assert loop.go() == 0
    (tmp_path / "references" / ".01.0123abcd.part.png").write_bytes(b"half")  # as a kill may leave it
    report = write_report(loop.run)
    assert any(s.startswith("One reference photo: fidelity has no scale") for s in report["distrust"])
    assert report["fidelity"]["ci95"] == [None, None] and "no interval: a single prompt" in report["answer"]
    text = (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_a_report_of_an_older_run_folder_with_infinity_and_nan_is_written(tmp_path: Path, one_prompt):
    """Python's json wrote -Infinity and NaN into facts; they are read as not known."""
    loop = _begun(tmp_path, rounds=1, stop={"rule": "best"})
    loop.go()
    loop.run.close()
    with sqlite3.connect(tmp_path / "records.sqlite") as db:
        for name in ("watch", "kept"):
            value = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]
            spoilt = value.replace('"low": null', '"low": -Infinity').replace('"stop"', '"gain": NaN, "stop"')
            assert spoilt != value
            db.execute("UPDATE facts SET value = ? WHERE name = ?", (spoilt, name))
        record = json.loads(db.execute("SELECT record FROM training ORDER BY step DESC").fetchone()[0])
        record |= {"step": 999, "margin": float("nan"), "winner_alarm": float("inf")}
        db.execute("INSERT OR REPLACE INTO training VALUES (0, 999, ?)", (json.dumps(record),))
    run = RunFolder(tmp_path)
    assert run.fact("watch")[0]["gain"]["low"] is None and run.fact("kept")["gain"] is None
    report = write_report(run)
    assert report["training"]["last_margin"] is None and report["training"]["max_winner_alarm"] == [None]
    written = (tmp_path / "report" / "report.json").read_text(encoding="utf-8")
    assert not re.search(r"NaN|Infinity", written)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "no interval: a single prompt" in page
    loop = make_loop(tmp_path, settings=changed(rounds=1, stop={"rule": "best"}))
    assert loop.go() == 0  # and it resumes


def test_finite_replaces_at_any_depth():
    nan, inf = float("nan"), float("inf")
    assert finite({"a": [1.0, nan, (inf, "x")], "b": {"c": -inf}, "d": 2, "e": None, "f": True}) == {
        "a": [1.0, None, [None, "x"]], "b": {"c": None}, "d": 2, "e": None, "f": True,
    }  # fmt: skip
