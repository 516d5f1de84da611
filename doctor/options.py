"""What the doctor can be asked, written once: the command line and `python doctor` take names, defaults and help from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FAMILIES = {"comfyui": ("toybox", "sd15", "sdxl", "flux"), "diffusers": ("toybox", "sd15")}
"""Of each backend, the families that it can train a tiny model of.

Of the toybox the shipped weights, else random ones.
"""


@dataclass(frozen=True)
class Options:
    """What each means: `HELP`."""

    comfyui: Path | None = None
    python: Path | None = None
    comfyui_args: str = ""
    family: str = "toybox"
    full: bool = False
    json: Path | None = None


HELP = {
    "comfyui": "ComfyUI's folder. Without it: COMFYUI_PATH, else the ComfyUI whose custom_nodes this pack lies in, else none is looked at.",
    "python": "The Python that ComfyUI runs in, or its venv, where it is in none of the usual places.",
    "comfyui_args": "Switches that you start ComfyUI with, as one text: --comfyui-args='--lowvram'. They decide about memory.",
    "family": "Model of the training self-check, tiny: toybox or sd15; with a ComfyUI also sdxl or flux.",
    "full": "Also train SD 1.5 and SDXL of full size (random weights) at every memory level: seconds, memory, gradients. Minutes.",
    "json": "Write the report to this file, too. One that exists is not overwritten.",
}
