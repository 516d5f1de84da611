"""Tests that ComfyUI versions are read from a folder and compared."""

from __future__ import annotations

from pathlib import Path

from comfyui_folders import make_comfyui

from dreambooth_dpo.dpo_core.supported_hosts import NEWEST, OLDEST, too_old, version_in


def test_versions_are_compared_by_their_numbers() -> None:
    assert too_old("0.3.9").startswith("DreamBooth DPO needs ComfyUI 0.3.64 or newer, and this is 0.3.9")
    assert [too_old(version) for version in (OLDEST, NEWEST, "0.33.0", "1.0", "unknown")] == [None] * 5


def test_version_is_read_without_an_import(tmp_path: Path) -> None:
    assert version_in(tmp_path) is None
    assert version_in(make_comfyui(tmp_path / "new", "0.40.1")) == "0.40.1"
    assert version_in(make_comfyui(tmp_path / "nameless", None)) == "unknown"
