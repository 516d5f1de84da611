"""Tests the comparison of LoRAs on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import fails, succeeds
from PIL import Image
from projects import config_of, make_project, write_config, write_lora
from safetensors.torch import load_file, save_file

from dreambooth_dpo import headless_compare
from dreambooth_dpo.dpo_core.evaluation.compare import WITHOUT
from dreambooth_dpo.dpo_core.run.folder import RunFolder


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project with three LoRAs of rank 3, which is not the config's rank, in loras ü/."""
    folder = tmp_path_factory.mktemp("compare") / "projekt é"
    make_project(folder)
    config = config_of(folder)
    model = headless_compare.config_model(config, "cpu")
    for seed in range(3):
        write_lora(model, folder / "loras ü" / f"epoch {seed}.safetensors", seed)
    return folder


def test_loras_are_ranked_and_later_ones_join_without_drawing_again(project: Path) -> None:
    files = [project / "loras ü" / f"epoch {seed}.safetensors" for seed in range(3)]
    config = project / "config.yaml"
    said = succeeds("compare", config, *files[:2])
    folder = project / "läufe" / "erster_compare"
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert {p["name"] for p in found["places"]} == {WITHOUT, "epoch 0", "epoch 1"}
    gains = [p["gain"]["mean"] for p in found["places"]]
    assert gains == sorted(gains, reverse=True) and 0.0 in gains
    assert found["words"] in said and f"{found['places'][0]['fidelity']['mean']:.3f}" in said
    assert found["files"]["epoch 1"] == {"file": str(files[1]), "strength": 1.0}
    for name in ("plane.png", "sheet.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 400
    times = {f: f.stat().st_mtime_ns for f in folder.rglob("*.png") if f.parent.name not in (folder.name, "references")}
    succeeds("compare", config, *files)
    assert len(json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["places"]) == 4
    assert all(f.stat().st_mtime_ns == t for f, t in times.items()), "a picture was drawn again"


def test_its_pictures_are_those_of_evaluate(project: Path) -> None:
    lora = project / "loras ü" / "epoch 0.safetensors"
    succeeds("compare", project / "config.yaml", lora, "--out", project / "eine", "--strengths", "0.5,1")
    succeeds("evaluate", project / "config.yaml", "--lora", lora, "--out", project / "gemessen")
    mine, theirs = RunFolder(project / "eine"), RunFolder(project / "gemessen")
    sets = mine.fact("compared")
    assert set(sets) == {WITHOUT, "epoch 0 at 0.5", "epoch 0 at 1"}
    for own, other in ((WITHOUT, "evaluation_0"), ("epoch 0 at 1", "evaluation_1")):
        assert torch.equal(mine.latents(sets[own]), theirs.latents(other))
        assert mine.scores(sets[own], "fidelity") == theirs.scores(other, "fidelity")
    assert not torch.equal(mine.latents(sets["epoch 0 at 0.5"]), theirs.latents("evaluation_1"))


def test_mistakes_are_refused_before_anything_is_drawn(project: Path) -> None:
    lora, config, out = project / "loras ü" / "epoch 0.safetensors", project / "config.yaml", project / "nichts"
    copy = project / "copy.safetensors"
    copy.write_bytes(lora.read_bytes())
    assert "holds the same LoRA as" in fails("compare", config, lora, copy, "--out", out)
    tensors = {name.replace("down_blocks_1", "down_blocks_9"): v for name, v in load_file(lora).items()}
    save_file(tensors, project / "foreign.safetensors")
    assert "of its" in fails("compare", config, lora, project / "foreign.safetensors", "--out", out)
    assert "gone.safetensors does not exist" in fails("compare", config, project / "gone.safetensors", "--out", out)
    assert "not a list of numbers" in fails("compare", config, lora, "--strengths", "x", "--out", out)
    assert not (out / "records.sqlite").exists()


def test_other_settings_need_another_folder(project: Path) -> None:
    lora, out = project / "loras ü" / "epoch 1.safetensors", project / "anders"
    succeeds("compare", project / "config.yaml", lora, "--out", out)
    other = write_config(project, "mehr.yaml", sampling__steps=3)
    assert "sampling.steps was 2, is 3" in fails("compare", other, lora, "--out", out)
