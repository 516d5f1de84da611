"""Tests which ComfyUI and Python the doctor checks, and its messages about unsuitable ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from comfyui_folders import make_comfyui

from dreambooth_dpo.doctor.comfyui_folder import (
    find_comfyui,
    find_python,
    folder_finding,
    front_end_finding,
    pinned_front_end,
)
from dreambooth_dpo.doctor.findings import FAILED, OK, WARNING


def make_python(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run outside every ComfyUI."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "argv", ["doctor"])


def test_option_precedes_environment_which_precedes_the_packs_folder(tmp_path: Path) -> None:
    home = make_comfyui(tmp_path / "home")
    pack = home / "custom_nodes" / "dreambooth-dpo"
    pack.mkdir()
    environment = {"COMFYUI_PATH": str(tmp_path / "other")}
    assert find_comfyui(tmp_path / "given", environment, pack) == (tmp_path / "given", "--comfyui")
    assert find_comfyui(None, environment, pack) == (tmp_path / "other", "COMFYUI_PATH")
    assert find_comfyui(None, {}, pack) == (home, "the folder that this pack is in")


def test_without_a_named_comfyui_the_reason_is_given(tmp_path: Path) -> None:
    folder, why = find_comfyui(None, {}, tmp_path)
    assert folder is None and "neither --comfyui nor COMFYUI_PATH" in why


def test_custom_nodes_folder_without_a_comfyui_is_ignored(tmp_path: Path) -> None:
    pack = tmp_path / "custom_nodes" / "pack"
    pack.mkdir(parents=True)
    assert find_comfyui(None, {}, pack)[0] is None


@pytest.mark.parametrize(
    ("version", "status", "said", "remedy"),
    [
        ("0.33.0", OK, "0.33.0 in ", ""),
        ("0.3.64", OK, "0.3.64 in ", ""),
        ("0.3.63", FAILED, "needs ComfyUI 0.3.64 or newer, and this is 0.3.63", "update ComfyUI."),
        ("0.99.0", WARNING, "newer than the newest that was tested (0.33.0)", "if a line fails, update DreamBooth DPO"),
        (None, WARNING, "does not say its version", "use a release from 0.3.64 to 0.33.0"),
    ],
)
def test_status_of_comfyui_versions(tmp_path: Path, version: str | None, status: str, said: str, remedy: str) -> None:
    found = folder_finding(make_comfyui(tmp_path / "ComfyUI", version), "--comfyui")
    assert found.status == status and said in found.said and remedy in found.remedy
    assert "\n" not in found.said + found.remedy


def test_folder_without_a_comfyui_is_refused(tmp_path: Path) -> None:
    found = folder_finding(tmp_path / "nowhere", "COMFYUI_PATH")
    assert found.status == FAILED and "no ComfyUI in" in found.said and "which COMFYUI_PATH names" in found.said
    assert found.remedy == "give the folder that contains main.py: --comfyui DIR"


@pytest.mark.parametrize(
    "place", ["venv/bin/python", ".venv/Scripts/python.exe", "../venv/bin/python", "../python_embeded/python.exe"]
)
def test_comfyuis_python_is_found_in_the_usual_places(tmp_path: Path, place: str) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    expected = make_python((folder / place).resolve())
    python, how = find_python(folder, None)
    assert python == expected and how.startswith("found in ")


def test_a_python_or_its_venv_can_be_named(tmp_path: Path) -> None:
    folder, python = make_comfyui(tmp_path / "ComfyUI"), make_python(tmp_path / "own" / "bin" / "python")
    make_python(folder / "venv" / "bin" / "python")
    assert find_python(folder, python) == find_python(folder, tmp_path / "own") == (python, "--python")


def test_invalid_python_is_refused(tmp_path: Path) -> None:
    python, why = find_python(make_comfyui(tmp_path / "ComfyUI"), tmp_path / "nowhere")
    assert python is None and "is not a Python that can be started" in why


def test_without_a_venv_the_doctors_own_python_is_used(tmp_path: Path) -> None:
    python, how = find_python(make_comfyui(tmp_path / "ComfyUI"), None)
    assert python == Path(sys.executable) and "there is no venv" in how


@pytest.mark.parametrize(
    ("installed", "status", "said"),
    [
        ("1.49.6", OK, "1.49.6"),
        ("1.58.1", OK, "newer than 1.49.6"),
        ("1.27.1", WARNING, "older than 1.49.6"),
        (None, WARNING, "no page"),
    ],
)
def test_the_front_end_is_compared_with_the_pinned_one(
    tmp_path: Path, installed: str | None, status: str, said: str
) -> None:
    folder = make_comfyui(tmp_path / "ComfyUI")
    assert pinned_front_end(folder) is None
    (folder / "requirements.txt").write_text("torch\ncomfyui-frontend-package==1.49.6\n", encoding="utf-8")
    found = front_end_finding(installed, pinned_front_end(folder), "python3", folder)
    assert found.status == status and said in found.said
    assert status == OK or "-m pip install -r" in found.remedy
