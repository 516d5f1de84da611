"""LoRA files of every family through real loaders: ComfyUI's two, and diffusers' own.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.lora_loaders --diffusers .venv/bin/python

Run it by the Python of that ComfyUI, on the CPU; --diffusers: a Python that has diffusers and peft. Tiny random models,
rank 4, alpha 2, all layers. Columns, largest relative differences: `patching` and `bypass`, the prediction with the
file by ComfyUI's loaders against the live adapter, of its effect; `diffusers form`, that form by the patching loader;
`diffusers (kohya)` and `diffusers (diffusers)`, the change of a layer's weight by the loader of the family's pipeline
against diffusers' own conversion of the merged weights. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.in_comfyui import measured
from . import in_diffusers

MORE = ("HunyuanImage21", "HunyuanDiT", "PixArtSigma", "Omnigen2", "LongCatImage")
"""Families that ComfyUI's loaders are tried with and diffusers has no LoRA loader for."""
COLUMNS = ("family", "patching", "bypass", "diffusers form, patching", "diffusers, kohya form", "diffusers, its form")


def rows(folder: str) -> dict[str, dict[str, Any]]:
    """ComfyUI's figures of each family that it has; writes the files for diffusers. Needs comfy."""
    return {name: found for name in (*in_diffusers.FAMILIES, *MORE) if (found := row(name, folder))}


def row(name: str, folder: str) -> dict[str, Any]:
    import comfy.sd

    from ..families.zoo import NotHere
    from .hosted import Lora

    try:
        lora = Lora(name)
    except NotHere:
        return {}
    bypass = getattr(comfy.sd, "load_bypass_lora_for_models", None)
    lora.write(Path(folder) / name)
    return {
        "patching": lora.apart(comfy.sd.load_lora_for_models),
        "bypass": lora.apart(bypass) if bypass else None,
        "form": None if lora.refused else lora.apart(comfy.sd.load_lora_for_models, "diffusers"),
    }


def cell(value: Any) -> str:
    """A figure; "no" where (part of) the layers were passed over or the loader refused the file; "-" for no loader."""
    if isinstance(value, str) or (value is not None and value > 0.1):
        return "no"
    return "-" if value is None else "0" if value == 0 else f"{value:.0e}"


def table(rows: Mapping[str, dict[str, Any]], loaded: Mapping[str, dict[str, Any]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for name, found in rows.items():
        theirs = loaded.get(name, {})
        values = (*(found[key] for key in ("patching", "bypass", "form")), theirs.get("kohya"), theirs.get("diffusers"))
        lines.append([name, *map(cell, values)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusers", default=sys.executable, help="a Python with diffusers; default: this one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured("lora_loaders.__main__.rows", folder)
        command = [args.diffusers, in_diffusers.__file__, folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(table(found, json.loads(done.stdout.splitlines()[-1])))


if __name__ == "__main__":
    main()
