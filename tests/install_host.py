"""Installs ComfyUI's requirements into this interpreter, for the host tests. Does nothing where there is no ComfyUI or another interpreter is named.

torch, torchvision and torchaudio are left as they are: a torchaudio of another build would break imports. The newest front end, which the browser
tests open beside the one that the requirements pin, goes into a folder of its own: no interpreter sees it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hosting import NEWEST_FRONT_END, comfyui_path, newest_front_end

LEFT_ALONE = {"torch", "torchvision", "torchaudio"}


def wanted(text: str) -> list[str]:
    """The lines of a requirements file that are to be installed."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line and re.split(r"[^\w.-]", line)[0].lower() not in LEFT_ALONE]


def install_newest_front_end() -> None:
    """Into its folder, once. Without a connection the browser tests do with the pinned front end, and say so."""
    folder = newest_front_end()
    if folder.is_dir() or not (comfyui_path() / "requirements.txt").is_file():
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-deps"]
    with tempfile.TemporaryDirectory() as beside:
        done = subprocess.run([*pip, "--target", beside, f"comfyui-frontend-package=={NEWEST_FRONT_END}"], check=False)
        found = Path(beside) / "comfyui_frontend_package" / "static"
        if done.returncode != 0 or not (found / "index.html").is_file():
            print(f"browser tests: front end {NEWEST_FRONT_END} could not be installed; they run on the pinned one alone")
            return
        # Moved into its place when it is whole.
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, folder)


def main() -> None:
    install_newest_front_end()
    requirements = comfyui_path() / "requirements.txt"
    if os.environ.get("COMFYUI_PYTHON"):
        print(f"host tests: ComfyUI runs in {os.environ['COMFYUI_PYTHON']}, nothing is installed there")
        return
    if not requirements.is_file():
        print(f"host tests: no ComfyUI at {comfyui_path()}; set COMFYUI_PATH to run them")
        return
    lines = wanted(requirements.read_text(encoding="utf-8"))
    stamp = Path(sys.prefix) / f".comfyui-{hashlib.sha256(repr(lines).encode()).hexdigest()[:12]}"
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *lines], check=True)
        stamp.touch()


if __name__ == "__main__":
    main()
