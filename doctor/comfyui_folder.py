"""Finds the ComfyUI to check and the Python that runs it, and whether its version is supported.

Reads files only; imports nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from ..dpo_core.supported_hosts import NEWEST, OLDEST, numbers, too_old, version_in
from .findings import FAILED, OK, WARNING, Finding
from .launch import ROOT

_PYTHONS = (
    "venv",
    ".venv",
    "env",
    "../venv",
    "../.venv",
    "../python_embeded",
    "../python_embedded",
    "../standalone-env",
)
"""Usual places of ComfyUI's Python, relative to its folder.

Manual and comfy-cli installations, the portable one for Windows, the desktop app.
"""


def find_comfyui(
    given: Path | None, environment: Mapping[str, str] = os.environ, root: Path = ROOT
) -> tuple[Path | None, str]:
    """The ComfyUI folder and what names it; (None, why) if there is none to check."""
    if given is not None:
        return given.expanduser().resolve(), "--comfyui"
    if named := environment.get("COMFYUI_PATH"):
        return Path(named.split(os.pathsep)[0]).expanduser().resolve(), "COMFYUI_PATH"
    # Paths are not resolved, because the pack may be a link in custom_nodes, as may the path it was started by.
    for place in dict.fromkeys((root, Path(sys.argv[0]).absolute().parent, Path.cwd())):
        for folder in (place, *place.parents):
            if folder.parent.name == "custom_nodes" and version_in(folder.parent.parent):
                return folder.parent.parent, "the folder that this pack is in"
    return None, "neither --comfyui nor COMFYUI_PATH names one, and this pack is not in a custom_nodes folder"


def folder_finding(folder: Path, named_by: str) -> Finding:
    """Whether the folder holds a supported ComfyUI."""
    version = version_in(folder)
    data = {"folder": str(folder), "version": version}
    if version is None:
        said = f"no ComfyUI in {folder} (no main.py with comfy/sd.py), which {named_by} names"
        return Finding("ComfyUI", FAILED, said, "give the folder that contains main.py: --comfyui DIR", data)
    if refused := too_old(version):
        said, _, remedy = refused.rpartition(": ")
        return Finding("ComfyUI", FAILED, f"{said} ({folder})", remedy, data)
    where = f"{version} in {folder}"
    if version == "unknown":
        return Finding(
            "ComfyUI", WARNING, f"{where} does not say its version", f"use a release from {OLDEST} to {NEWEST}", data
        )
    if numbers(version) > numbers(NEWEST):
        said = f"{where} is newer than the newest that was tested ({NEWEST})"
        return Finding(
            "ComfyUI",
            WARNING,
            said,
            "it is tried below; if a line fails, update DreamBooth DPO or use a tested version",
            data,
        )
    return Finding("ComfyUI", OK, f"{where} (tested: {OLDEST} to {NEWEST})", data=data)


def find_python(folder: Path, given: Path | None) -> tuple[Path | None, str]:
    """The Python that runs this ComfyUI, and how it was found; (None, why) if `given` is not a Python."""
    if given is not None:
        found = _python_in(given.expanduser()) if given.is_dir() else shutil.which(str(given.expanduser()))
        return (Path(found), "--python") if found else (None, f"{given} is not a Python that can be started")
    if Path(sys.prefix).resolve().is_relative_to(folder):
        return Path(sys.executable), "this one, which is in ComfyUI's folder"
    for place in _PYTHONS:
        if (path := _python_in(Path(os.path.normpath(folder / place)))) is not None:
            return path, f"found in {place}"
    return Path(sys.executable), "this one, because there is no venv in or beside ComfyUI's folder"


def _python_in(folder: Path) -> Path | None:
    names = ("Scripts/python.exe", "python.exe", "bin/python", "bin/python3")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def pinned_front_end(folder: Path) -> str | None:
    """The version of comfyui-frontend-package that this ComfyUI's requirements pin, or None."""
    file = folder / "requirements.txt"
    found = (
        re.search(r"^comfyui-frontend-package==([\w.]+)", file.read_text(encoding="utf-8"), re.M)
        if file.is_file()
        else None
    )
    return found[1] if found else None


def front_end_finding(installed: str | None, pinned: str | None, python: str, folder: Path) -> Finding:
    """Compare the installed front-end package with the version that this ComfyUI pins."""
    data = {"installed": installed, "pinned": pinned}
    remedy = f'"{python}" -m pip install -r "{folder / "requirements.txt"}"'
    if installed is None:
        wanted = f" (this ComfyUI needs {pinned})" if pinned else ""
        said = f"comfyui-frontend-package is not installed{wanted}: there is no page to open"
        return Finding("front end", WARNING, said, f"{remedy}, unless you start ComfyUI with --front-end-root", data)
    if pinned and numbers(installed) < numbers(pinned):
        return Finding(
            "front end", WARNING, f"{installed} is older than {pinned}, which this ComfyUI needs", remedy, data
        )
    newer = (
        f" (newer than {pinned}, which this ComfyUI needs)" if pinned and numbers(installed) > numbers(pinned) else ""
    )
    return Finding("front end", OK, f"{installed}{newer}", data=data)
