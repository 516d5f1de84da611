"""The packages that the pack needs, compared with those of a Python. Reads their metadata and imports none."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from .findings import FAILED, OK, Finding

CORE = {
    "numpy": "everything",
    "pillow": "pictures",
    "safetensors": "weights",
    "pydantic>=2": "settings",
    "matplotlib": "curves and figures",
    "jinja2": "the report",
    "pyyaml": "configs",
    "open_clip_torch": "scorers",
    "transformers": "scorers and text encoders",
}
"""Requirement and its use: the dependencies of pyproject.toml (a test compares them)."""
HEADLESS = {
    "torch": "everything",
    "torchvision": "scorers",
    "diffusers": "models without ComfyUI",
    "accelerate": "models without ComfyUI",
    "peft": "LoRAs without ComfyUI",
    "typer": "the command line",
    "rich": "the command line",
    "psutil": "measurements",
    "httpx": "scorers on other machines",
}
"""The same for the extra `headless`."""


def installed(name: str) -> str | None:
    """The version of a distribution in this Python, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lacking(needed: dict[str, str], versions: dict[str, str | None]) -> dict[str, str]:
    """The requirements in `needed` that `versions` (by name) do not meet.

    By requirement: "missing", or the version that is too old.
    """
    found = {}
    for requirement in needed:
        name, _, least = requirement.partition(">=")
        version = versions.get(name)
        if version is None:
            found[requirement] = "missing"
        elif least and _numbers(version) < _numbers(least):
            found[requirement] = f"{version} is too old"
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0]))


def package_finding(needed: dict[str, str], python: str, root: Path, headless: bool) -> Finding:
    """Check `needed` in this Python; failed, with the command that installs what is missing."""
    versions = {name: installed(name) for name in (r.partition(">=")[0] for r in needed)}
    data = {"versions": versions}
    if gone := lacking(needed, versions):
        said = ", ".join(f"{r.partition('>=')[0]} ({why}; for {needed[r]})" for r, why in gone.items())
        wanted = f'-e "{root}[headless]"' if headless else f'-r "{root / "requirements.txt"}"'
        if not (root / "pyproject.toml").is_file():  # installed from a wheel
            wanted = " ".join(f'"{name}"' for name in gone)
        return Finding("packages", FAILED, f"not installed: {said}", f'"{python}" -m pip install {wanted}', data)
    shown = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in ("torch", "torchvision"))
    return Finding("packages", OK, shown, data=data)
