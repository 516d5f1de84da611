"""Every pipeline class of diffusers that the headless way drives, on tiny models with random weights.

    python -m dreambooth_dpo.benchmarks.pipelines [CLASS ...] [--json FILE]

Columns: `drawn`, latents against the pipeline's own call (relative to the largest value); `pixels`, the largest
difference of a decoded pixel (0 to 255); one column for each memory level, the relative error of the gradient against
differences of the loss; `LoRA`, the prediction with the LoRA file in the pipeline's `load_lora_weights` against the
live adapter, of the adapter's effect. Prints a table in Markdown; ends with 1 where a class fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ...dpo_core.backends.diffusers.quiet import quiet_libraries
from ...dpo_core.errors import UserError
from ...dpo_core.training.memory.levels import LEVELS
from .check import Row, row
from .tiny import BUILDERS


def table(rows: dict[str, Row]) -> str:
    lines = [["pipeline", "drawn", "pixels", *LEVELS, "LoRA"], ["---"] * (4 + len(LEVELS))]
    for name, found in rows.items():
        figures = [found.drawn, *(found.levels[level] for level in LEVELS), found.lora]
        drawn, *rest = (f"{value:.0e}" if value else "0" for value in figures)
        lines.append([name, drawn, str(found.decoded), *rest])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"of {', '.join(BUILDERS)}; default: all")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if unknown := [name for name in args.classes if name not in BUILDERS]:
        parser.error(f"unknown: {', '.join(unknown)}. Choose from {', '.join(BUILDERS)}.")
    quiet_libraries()
    rows, failed = {}, []
    for name in args.classes or BUILDERS:
        try:
            rows[name] = row(name)
        except UserError as error:
            failed.append(f"{name}: {error}")
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({n: r._asdict() for n, r in rows.items()}, indent=1), encoding="utf-8")
    print(*failed, sep="\n", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
