"""Data of the before/after slider: names of pictures in the run folder, and their largest number."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.evaluation.held_out import Measured
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.nodes.host.compare import compare


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's output folder."""
    monkeypatch.setitem(
        sys.modules, "folder_paths", SimpleNamespace(get_output_directory=lambda: str(tmp_path / "output"))
    )
    return tmp_path / "output"


SETS = ("old", "new")


def measured(prompts: int, seeds: int) -> Measured:
    scores = np.arange(prompts * seeds) / 1000
    names = ("fidelity", "alignment", "judge_fidelity")
    by_set = {(name, title): scores + rise for name, rise in zip(SETS, (0.0, 0.5), strict=True) for title in names}
    return Measured(SETS, by_set, np.repeat(np.arange(prompts), seeds))


def test_pairs_name_their_files_and_scores(output: Path):
    with RunFolder(output / "dreambooth_dpo" / "run ä") as run:
        found = compare(run, measured(2, 2), SETS, ("a dog", "a cat"), 2)
    assert (found["before"], found["after"]) == ("dreambooth_dpo/run ä/old/images", "dreambooth_dpo/run ä/new/images")
    assert found["prompts"] == ["a dog", "a cat"]
    assert [(p["prompt"], p["seed"], p["name"]) for p in found["pairs"]] == [
        (0, 1, "00000.png"), (0, 2, "00001.png"), (1, 1, "00002.png"), (1, 2, "00003.png"),
    ]  # fmt: skip
    assert [(title, round(now - old, 3)) for title, old, now in found["pairs"][3]["scores"]] == [
        ("Fidelity", 0.5),
        ("Alignment", 0.5),
    ]


def test_many_pictures_are_thinned_evenly(output: Path):
    prompts = tuple(f"prompt {i}" for i in range(100))
    with RunFolder(output / "run") as run:
        found = compare(run, measured(100, 6), SETS, prompts, 6)
    assert len(found["prompts"]) == 24 and found["prompts"][0] == "prompt 0" and found["prompts"][-1] == "prompt 99"
    assert len(found["pairs"]) == 72 and found["pairs"][-1]["name"] == "00599.png"
    assert {p["seed"] for p in found["pairs"]} == {1, 3, 6}


def test_a_run_outside_the_output_folder_offers_nothing(output: Path, tmp_path: Path):
    with RunFolder(tmp_path / "elsewhere") as run:
        assert compare(run, measured(1, 1), SETS, ("a dog",), 1) == {}
