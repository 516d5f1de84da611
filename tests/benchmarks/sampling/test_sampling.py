"""The sampling benchmark: its models, a small run of it, and its cache."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dreambooth_dpo.benchmarks.sampling import diffusers_loop
from dreambooth_dpo.benchmarks.sampling.__main__ import main
from dreambooth_dpo.benchmarks.sampling.models import pipeline, sampling_settings
from dreambooth_dpo.benchmarks.sampling.records import draw


def test_models_have_settings_of_their_size():
    assert sampling_settings("toybox").width == 64 and sampling_settings("sd15", guidance=4.0).width == 512
    with pytest.raises(SystemExit, match="does not sample from SDXL"):
        pipeline("sdxl")


def test_the_command_draws_on_both_sides_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        diffusers_loop, "VARIANTS", {"guidance 4 until 0.5": diffusers_loop.VARIANTS["guidance 4 until 0.5"]}
    )
    monkeypatch.setattr(
        diffusers_loop, "sampling_settings", lambda name, **changes: sampling_settings(name, steps=2, **changes)
    )
    monkeypatch.setattr(
        sys,
        "argv",
        ["sampling", "--out", str(tmp_path), "--turns", "1", "--prompts", "1", "--batch", "8", "--device", "cpu"],
    )
    main()
    (found,) = json.loads((tmp_path / "sampling.json").read_text(encoding="utf-8"))["sampling"]
    assert found["pictures"] == 8 and found["ratio"] > 0 and found["steps"] == 2
    assert set(found["phases_s"]) == set(diffusers_loop.PHASES) and all(v > 0 for v in found["phases_s"].values())


def test_kept_candidates_are_not_drawn_again(tmp_path: Path):
    np.savez(tmp_path / "concept_3.npz", prompt=np.zeros(2, int), seconds_denoise=0.5)
    found, seconds = draw(3, tmp_path)
    assert set(found) == {"prompt"} and seconds == {"denoise": 0.5}
