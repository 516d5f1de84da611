"""One round headless and in ComfyUI from one tiny checkpoint of each family: how far apart are the two?

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.parity [FAMILY ...] [--json FILE]

Run it by the Python of that ComfyUI with diffusers and peft installed, on the CPU. Tiny random models, the same text
embeddings on both sides. Columns, largest differences: `drawn`, latents, of the largest value; `pixels`, of decoded
pictures, 0 to 255; `pairs`, how many both chose; `error`, relative, of the candidates' denoising errors; `adapter`, the
weight changes after `steps` steps of training, of their norm; `loss`, of these steps. Prints a table in Markdown; ends
with 1 where a family fails or cannot be held by both.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.in_comfyui import measured
from .families import FAMILIES

COLUMNS = ("drawn", "pixels", "pairs", "error", "steps", "adapter", "loss")


def rows(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures of each family, with "passes"; {"refused": the sentence} where it cannot be run. Needs comfy."""
    from ...dpo_core.backends.diffusers.quiet import quiet_libraries
    from .check import passes, row

    quiet_libraries()
    found = {}
    for name in names:
        try:
            figures = row(name)
            found[name] = {**figures, "passes": passes(figures)}
        except Exception as error:  # a family that crashes must not end the table
            last = traceback.extract_tb(error.__traceback__)[-1]
            found[name] = {"refused": f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"}
    return found


def cell(value: Any) -> str:
    """A figure in a few characters; "-" where there is none."""
    if isinstance(value, float):
        return f"{value:.0e}" if value else "0"
    return "-" if value is None else str(value)


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [["family", "", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for name, figures in found.items():
        state = "passes" if figures.get("passes") else figures.get("refused", "FAILS")
        lines.append([name, state, *(cell(figures.get(column)) for column in COLUMNS)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if unknown := [name for name in args.families if name not in FAMILIES]:
        parser.error(f"unknown: {', '.join(unknown)}. Choose from {', '.join(FAMILIES)}.")
    found = measured("parity.__main__.rows", args.families or list(FAMILIES))
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    sys.exit(not all(figures.get("passes") for figures in found.values()))


if __name__ == "__main__":
    main()
