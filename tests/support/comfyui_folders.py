"""A folder that the doctor recognises as a ComfyUI."""

from __future__ import annotations

from pathlib import Path


def make_comfyui(folder: Path, version: str | None = "0.33.0") -> Path:
    """Create the files by which the doctor recognises a ComfyUI."""
    (folder / "comfy").mkdir(parents=True)
    (folder / "custom_nodes").mkdir()
    (folder / "main.py").touch()
    (folder / "comfy" / "sd.py").touch()
    if version is not None:
        (folder / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    return folder
