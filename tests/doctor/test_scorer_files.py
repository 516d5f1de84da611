"""Tests the checks of scorer files: found in a folder or the cache, incomplete, or to be downloaded."""

from __future__ import annotations

import json
from pathlib import Path

from dreambooth_dpo.doctor.findings import FAILED, OK, WARNING
from dreambooth_dpo.doctor.scorer_files import USUAL, scorer_findings, toybox_finding
from dreambooth_dpo.metrics.model_files import CLIP_WEIGHTS

CLIP = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


def test_complete_and_missing_toybox_weights(tmp_path: Path) -> None:
    assert toybox_finding().status == OK
    found = toybox_finding(tmp_path)
    assert (
        found.status == FAILED and "pipeline, reward, judge" in found.said and "restore toybox/weights" in found.remedy
    )


def test_missing_scorers_are_named_with_their_download(tmp_path: Path) -> None:
    found = scorer_findings([tmp_path / "scorers"], {"HF_HOME": str(tmp_path / "hf")})
    assert [f.status for f in found] == [WARNING] * len(USUAL)
    where, files = tmp_path / "scorers" / CLIP.split("/")[1], "open_clip_config.json open_clip_model.safetensors"
    assert found[0].remedy == f'hf download {CLIP} {files} --local-dir "{where}" (0.6 GB)'


def test_scorers_in_the_cache_are_found(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf" / "hub" / f"models--{CLIP.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    environment = {"HF_HOME": str(tmp_path / "hf")}
    assert scorer_findings([], environment)[0].status == WARNING, "a snapshot without weights is none"
    (snapshot / CLIP_WEIGHTS).touch()
    found = scorer_findings([], environment)[0]
    assert found.status == OK and str(snapshot) in found.said


def test_complete_folder_counts_and_incomplete_one_is_named(tmp_path: Path) -> None:
    good, bad = tmp_path / CLIP.split("/")[1], tmp_path / "broken"
    for folder in (good, bad):
        folder.mkdir()
        config = {"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}
        (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    for path in (good / CLIP_WEIGHTS, tmp_path / "single.safetensors"):
        path.write_bytes((2).to_bytes(8, "little") + b"{}")  # a safetensors file without tensors
    found = scorer_findings([tmp_path], {"HF_HOME": str(tmp_path / "hf")})
    assert [(f.status, f.name) for f in found] == [(WARNING, "scorer"), (OK, "scorers"), (WARNING, "scorer")]
    assert f"lacks {CLIP_WEIGHTS}" in found[0].said and "hf download" in found[0].remedy
    assert "single.safetensors" in found[1].said and good.name in found[1].said and "dinov2" in found[2].said
