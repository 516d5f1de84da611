"""The doctor's options, written once: names, defaults and help for the command line and `python doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FAMILIES = {"comfyui": ("toybox", "sd15", "sdxl", "flux"), "diffusers": ("toybox", "sd15")}
"""By backend, the families of which it can train a tiny model.

The toybox has its shipped weights, the others random ones.
"""


@dataclass(frozen=True)
class Options:
    """The options; `HELP` describes each."""

    comfyui: Path | None = None
    python: Path | None = None
    comfyui_args: str = ""
    family: str = "toybox"
    full: bool = False
    json: Path | None = None


HELP = {
    "comfyui": (
        "ComfyUI's folder. Default: COMFYUI_PATH, else the ComfyUI whose custom_nodes contains this pack, else no "
        "ComfyUI is checked."
    ),
    "python": "The Python that ComfyUI runs in, or its venv, if it is not in one of the usual places.",
    "comfyui_args": (
        "Switches that you start ComfyUI with, as one text: --comfyui-args='--lowvram'. They affect memory."
    ),
    "family": "Tiny model for the training self-check: toybox or sd15; with a ComfyUI also sdxl or flux.",
    "full": (
        "Also train full-size SD 1.5 and SDXL (random weights) at every memory level and report seconds, memory and "
        "gradients. Takes minutes."
    ),
    "json": "Also write the report to this file. An existing file is not overwritten.",
}
