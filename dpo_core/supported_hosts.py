"""Which versions of ComfyUI are supported, and which version lies in a folder.

Imports nothing: it is asked before anything else works.
"""

from __future__ import annotations

import re
from pathlib import Path

OLDEST = "0.3.64"
"""The oldest ComfyUI that is supported and tested."""
NEWEST = "0.33.0"
"""The newest that was tested. Newer ones are not refused."""


def numbers(text: str) -> tuple[int, ...]:
    """ "0.3.64" -> (0, 3, 64); () for a version that has no number."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def too_old(version: str) -> str | None:
    """One line that says that this version is refused, and what to do; None where it is not."""
    if numbers(version) and numbers(version) < numbers(OLDEST):
        return f"DreamBooth DPO needs ComfyUI {OLDEST} or newer, and this is {version}: update ComfyUI."
    return None


def version_in(folder: Path) -> str | None:
    """The version that a ComfyUI folder says of itself, "unknown" where it does not; None where the folder holds no
    ComfyUI.
    """
    if not (folder / "main.py").is_file() or not (folder / "comfy" / "sd.py").is_file():
        return None
    file = folder / "comfyui_version.py"
    found = (
        re.search(r'__version__\s*=\s*"([^"]+)"', file.read_text(encoding="utf-8", errors="replace"))
        if file.is_file()
        else None
    )
    return found[1] if found else "unknown"
