"""Tests the strength sweep on the command line: of a LoRA file, and at a run's end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import fails, succeeds
from loops import difference
from PIL import Image
from projects import make_project, write_config

from dreambooth_dpo import headless
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.training.lora_files import read_lora
from dreambooth_dpo.toybox import run as toybox_run

DIAL = {"stop": {"rule": "last"}, "strength": {"strengths": [1.0, 0.5]}}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with a finished run in läufe/fertig, without a sweep."""
    folder = tmp_path_factory.mktemp("strength") / "projekt é"
    make_project(folder)
    succeeds("run", write_config(folder, output="läufe/fertig", **DIAL))
    return folder


@pytest.fixture(scope="module")
def lora(project: Path) -> Path:
    return project / "läufe" / "fertig" / "dreambooth_dpo_lora.safetensors"


@pytest.fixture(scope="module")
def swept(project: Path, lora: Path) -> tuple[Path, str]:
    """A finished sweep: (folder, output)."""
    config, before = write_config(project, "regler.yaml", output="läufe/regler", **DIAL), lora.read_bytes()
    said = succeeds("strength", config, "--lora", lora)
    assert lora.read_bytes() == before, "the LoRA was changed"
    return project / "läufe" / "regler_strength", said


def test_sweep_writes_curve_strip_and_numbers_and_prints_the_recommendation(swept: tuple[Path, str]) -> None:
    folder, said = swept
    found = json.loads((folder / "strength.json").read_text(encoding="utf-8"))
    assert [p["strength"] for p in found["points"]] == [0, 0.5, 1]
    assert found["words"] in said and f"{found['value']:g} *" in said
    for name in ("curve.png", "strip.png"):
        assert str(folder / name) in said
        with Image.open(folder / name) as picture:
            assert picture.width > 400
    assert "held" in said and f"{found['points'][1]['fidelity']['mean']:.3f}" in said


def test_strengths_0_and_1_equal_the_runs_own_evaluation(swept: tuple[Path, str], project: Path) -> None:
    folder, run = RunFolder(swept[0]), RunFolder(project / "läufe" / "fertig")
    for mine, theirs in (("strength_0.00", "evaluation_0"), ("strength_1.00", "evaluation_1")):
        assert torch.equal(folder.latents(mine), run.latents(theirs))
        assert folder.scores(mine, "alignment") == run.scores(theirs, "alignment")
    assert not torch.equal(folder.latents("strength_0.50"), run.latents("evaluation_0"))


def test_sweep_resumes_with_more_strengths(swept: tuple[Path, str], project: Path, lora: Path) -> None:
    folder = swept[0]
    config = write_config(
        project, "mehr.yaml", output="läufe/regler", **{**DIAL, "strength": {"strengths": [0.5, 1.25]}}
    )
    assert "already holds this run. Add --resume" in fails("strength", config, "--lora", lora)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("strength_*/images/*.png")}
    succeeds("strength", config, "--lora", lora, "--resume")
    found = json.loads((folder / "strength.json").read_text(encoding="utf-8"))
    assert [p["strength"] for p in found["points"]] == [0, 0.5, 1.25]
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_wrong_input_is_refused_before_sampling(project: Path, lora: Path) -> None:
    config = write_config(project, "falsch.yaml", output="läufe/nie", **{**DIAL, "adapter": {"rank": 4, "alpha": 2.0}})
    assert "another rank or another model" in fails("strength", config, "--lora", lora)
    assert "fehlt.safetensors does not exist" in fails("strength", config, "--lora", project / "fehlt.safetensors")
    config = write_config(project, "falsch.yaml", output="läufe/nie", strength={"strengths": [0.5, 9]})
    assert "strength.strengths: Value error, strength 9 is outside 0 to 4" in fails("strength", config, "--lora", lora)
    assert not (project / "läufe" / "nie_strength").exists()


def test_finished_run_can_be_swept_later(project: Path) -> None:
    """Candidates and training are reused, and the report gets a strength section."""
    folder = project / "läufe" / "fertig"
    assert RunFolder(folder).fact("strength") is None
    before = read_lora(folder / "dreambooth_dpo_lora.safetensors")
    said = succeeds("run", write_config(project, "später.yaml", output="läufe/fertig", sweep=True, **DIAL), "--resume")
    kept = RunFolder(folder).fact("strength")
    assert kept["words"] in said
    assert [p["set"] for p in kept["points"]] == ["evaluation_0", "strength_0.50", "evaluation_1"]
    assert "<h2>Strength</h2>" in (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert difference(read_lora(folder / "dreambooth_dpo_lora.safetensors"), before) == 0
    other = {**DIAL, "strength": {"strengths": [1.0, 0.5], "seeds_per_prompt": 3}}
    config = write_config(project, "später.yaml", output="läufe/fertig", sweep=True, **other)
    assert "settings.strength.seeds_per_prompt was None, is 3" in fails("run", config, "--resume")


@pytest.mark.parametrize("swept_too", [True, False])
def test_demo_sweeps_with_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept_too: bool) -> None:
    """Checks the demo's settings without its minutes of training."""
    asked = []
    monkeypatch.setattr(toybox_run, "demo_loop", lambda *given, **_: asked.append(given[2]))
    report = {"answer": "Done.", "strength": {"words": "Strength 0.75 is recommended."} if swept_too else None}
    monkeypatch.setattr(headless, "run_loop", lambda *_: (tmp_path / "lora.safetensors", report))
    said = succeeds("demo", "--out", tmp_path, *(["--sweep"] if swept_too else []))
    assert [settings.sweep for settings in asked] == [swept_too]
    assert ("Strength 0.75 is recommended." in said) == swept_too
