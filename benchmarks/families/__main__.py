"""Which architectures of ComfyUI work with this pack: tiny random models, one process each, on the CPU.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.families --out runs/families

Run it by the Python of that ComfyUI. Columns: `draws`, several prompts in one batch against the host's sampler with
each alone; `prompts`, the same of a prediction in training; each memory level, the gradient self-test and the
difference from the first level's gradients; `hooks`, adapted layers, and those that a forward does not call; `lora`,
the saved file by the host's loader against the live adapter. Differences are relative. Writes families.json and
families.md; ends with 1 where an architecture fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...dpo_core.run.files import write_json
from ..common.command import parse_names
from ..common.in_comfyui import measured
from ..common.tables import print_table
from .check import COLUMNS, passes
from .zoo import ZOO


def cell(value: Any) -> str:
    """A figure of the table in a few characters."""
    if isinstance(value, float):
        return f"{value:.0e}"
    if isinstance(value, dict) and "self_test" in value:
        return f"{value['self_test']:.1%}"
    if isinstance(value, dict):
        return f"{value['layers'] - len(value['unused'])} of {value['layers']}"
    return "-" if value is None else "no"


def lines(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The table: a line for each architecture, with its sentence where it is refused or fails."""
    table = []
    for row in rows:
        said = row.get("refused") or row.get("absent") or ""
        if not said and not passes(row):
            said = next((f"{c}: {row[c]}" for c in ("training", *COLUMNS) if isinstance(row.get(c), str)), "see JSON")
        state = "refused" if "refused" in row else "absent" if "absent" in row else "passes" if passes(row) else "FAILS"
        table.append([row["name"], state, *(cell(row.get(column)) for column in COLUMNS), said])
    return table


def summary(rows: list[dict[str, Any]]) -> tuple[str, bool]:
    """The last line, and whether an architecture fails."""
    here = [row for row in rows if "absent" not in row]
    failing = [row["name"] for row in here if "refused" not in row and not passes(row)]
    good = sum(map(passes, here))
    refused = sum("refused" in row for row in here)
    said = (
        f"{good} of {len(here)} architectures pass, {refused} refused by name, failing: {', '.join(failing) or 'none'}"
    )
    return said, bool(failing)


def markdown(rows: list[dict[str, Any]], said: str) -> str:
    head = ["architecture", "", *COLUMNS, "why not"]
    table = [head, ["---"] * len(head), *lines(rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in table) + f"\n\n{said}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/families"), help="folder; default: %(default)s")
    parser.add_argument("--only", default=",".join(ZOO), help="names, commas between; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    args = parser.parse_args()
    names = parse_names(parser, args.only, ZOO, "architecture")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(row_of, names))
    print_table("Architectures", ["architecture", "", *COLUMNS, "why not"], lines(rows), 200)
    said, failing = summary(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "families.json", {"rows": rows, "summary": said})
    (args.out / "families.md").write_text(markdown(rows, said), encoding="utf-8")
    print(said)
    sys.exit(int(failing))


def row_of(name: str) -> dict[str, Any]:
    """An architecture's row from a process of its own; a crash of it is a row too."""
    from subprocess import CalledProcessError

    try:
        return measured("families.check.check", name)
    except CalledProcessError as error:
        return {"name": name, "training": f"the process ended with {error.returncode}"}


if __name__ == "__main__":
    main()
