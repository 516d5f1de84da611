"""Supported ComfyUI versions, and the version in a folder.

Imports nothing of the package, since it must work before anything else does.
"""

from __future__ import annotations

import re
from pathlib import Path

OLDEST = "0.3.64"
"""The oldest ComfyUI that is supported and tested."""
NEWEST = "0.33.0"
"""The newest that was tested. Newer ones are not refused."""


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of a version string: "0.3.64" -> (0, 3, 64); () if it has none."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def too_old(version: str) -> str | None:
    """The message that refuses a version that is too old; None if it is supported."""
    if numbers(version) and numbers(version) < numbers(OLDEST):
        return f"DreamBooth DPO needs ComfyUI {OLDEST} or newer, and this is {version}: update ComfyUI."
    return None


def version_in(folder: Path) -> str | None:
    """Version of the ComfyUI in a folder: "unknown" if it does not say, None if the folder holds no ComfyUI."""
    if not (folder / "main.py").is_file() or not (folder / "comfy" / "sd.py").is_file():
        return None
    file = folder / "comfyui_version.py"
    found = (
        re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8", errors="replace"))
        if file.is_file()
        else None
    )
    return found[1] if found else "unknown"
