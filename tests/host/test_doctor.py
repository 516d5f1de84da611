"""The doctor on a real ComfyUI, started as a user starts it, and its tiny models of each family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosting import comfyui_path

from dreambooth_dpo.doctor.findings import OK
from dreambooth_dpo.doctor.in_comfyui import tiny_subject
from dreambooth_dpo.doctor.options import FAMILIES
from dreambooth_dpo.doctor.training_check import limit_of, tiny
from dreambooth_dpo.doctor.training_findings import self_check_findings
from dreambooth_dpo.dpo_core.supported_hosts import numbers, version_in

pytestmark = pytest.mark.usefixtures("comfyui")
ROOT = Path(__file__).resolve().parents[2]


def doctor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor from the pack's folder, without an installed package, on the ComfyUI under test."""
    command = [
        sys.executable,
        str(ROOT / "doctor"),
        "--comfyui",
        str(comfyui_path()),
        "--python",
        sys.executable,
        *arguments,
    ]
    environment = {**os.environ, "HF_HOME": str(folder / "hf")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


def test_a_working_comfyui_is_reported_line_by_line(comfyui: Path, tmp_path: Path) -> None:
    if not (comfyui / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    done = doctor(tmp_path, "--json", "report.json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = {line["name"]: line for line in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["lines"]}
    version = version_in(comfyui)
    assert lines["ComfyUI"]["data"]["version"] == lines["ComfyUI starts"]["data"]["version"] == version
    assert lines["memory system"]["data"]["system"] == "classic"
    why = "has no dynamic VRAM" if numbers(version) < (0, 16) else "dynamic VRAM is off by --cpu"
    assert why in lines["memory system"]["said"]
    expected = ("Python", "packages", "PyTorch", "main memory", "front end", "toybox", "gradients", "training")
    assert [name for name in expected if lines[name]["status"] != OK] == [], done.stdout
    assert lines["training"]["data"]["levels"] == ["fast", "checkpointing", "low", "stream"]
    assert (
        0 < max(lines["training"]["data"]["self_test"]) < 0.02
        and lines["training"]["data"]["largest_difference"] < 1e-4
    )
    assert done.stdout.rstrip().splitlines()[-2].startswith("It will work here: ")


def test_switches_that_this_comfyui_does_not_know_are_named(comfyui: Path, tmp_path: Path) -> None:
    if not (comfyui / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    done = doctor(tmp_path, "--comfyui-args=--no-such-switch")
    assert (
        done.returncode == 1 and "--no-such-switch" in done.stdout and "remedy: correct --comfyui-args" in done.stdout
    )


@pytest.mark.parametrize("family", [f for f in FAMILIES["comfyui"] if f != "toybox"])
def test_tiny_models_of_other_families_train(family: str, as_nodes_run: None) -> None:
    subject = tiny_subject(family)
    lines = self_check_findings(family, list(tiny(subject)), limit_of(subject.model))
    assert [line.status for line in lines] == [OK, OK], lines
