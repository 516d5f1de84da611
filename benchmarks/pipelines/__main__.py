"""Every pipeline class of diffusers that the headless way drives, on tiny models with random weights.

    python -m dreambooth_dpo.benchmarks.pipelines [--quantized] [CLASS ...] [--json FILE]
    python -m dreambooth_dpo.benchmarks.pipelines --offloading [--json FILE]

Columns: `drawn`, latents against the pipeline's own call (relative to the largest value); `pixels`, the largest
difference of a decoded pixel (0 to 255); one column for each memory level, the relative error of the gradient against
differences of the loss; `LoRA`, the prediction with the LoRA file in the pipeline's `load_lora_weights` against the
live adapter, of the adapter's effect. Prints a table in Markdown; ends with 1 where a class fails.

`--quantized`: the same for quantized bases (default: four classes), with these columns instead of the first two.
`size`, bytes of the linear layers of those in float32; `weights`, distance of the dequantized weights from the
unquantized ones; `gradient`, distance of the adapter's gradient from that on the dequantized weights; `on a device`,
that of the level stream on a device stand-in from that of fast. All are shares of the norm.

`--offloading`: diffusers' group offloading against the level stream, on a device stand-in. `peak`, the most weights
there at a time; `left`, after the step, both of all weights; `right`, whether the result is that without offloading.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ...dpo_core.backends.diffusers.quantized import KINDS
from ...dpo_core.backends.diffusers.quiet import quiet_libraries
from ...dpo_core.errors import UserError
from ...dpo_core.training.memory.levels import LEVELS
from .check import Row, row
from .offload import Offloaded, offloads
from .quantized import CLASSES, QuantizedRow, quantized_row
from .tiny import BUILDERS


def table(rows: dict[str, Row]) -> str:
    lines = [["pipeline", "drawn", "pixels", *LEVELS, "LoRA"], ["---"] * (4 + len(LEVELS))]
    for name, found in rows.items():
        figures = [found.drawn, *(found.levels[level] for level in LEVELS), found.lora]
        drawn, *rest = (f"{value:.0e}" if value else "0" for value in figures)
        lines.append([name, drawn, str(found.decoded), *rest])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def quantized_table(rows: dict[str, QuantizedRow]) -> str:
    heads = ["pipeline", "quantization", "size", "weights", "gradient", "on a device", *LEVELS, "LoRA"]
    lines = [heads, ["---"] * len(heads)]
    for name, found in rows.items():
        small = [found.weights, found.gradient, found.stream, *found.levels.values(), found.lora]
        figures = [f"{found.size:.2f}", *(f"{value:.0e}" if value else "0" for value in small)]
        lines.append([*name.split(" "), *figures])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def offload_table(rows: dict[str, Offloaded]) -> str:
    lines = [["", "peak", "left", "right"], ["---"] * 4]
    lines += [[n, f"{r.peak:.2f}", f"{r.left:.2f}", "yes" if r.right else "no"] for n, r in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help=f"of {', '.join(BUILDERS)}; default: all")
    parser.add_argument("--quantized", action="store_true", help="check quantized bases")
    parser.add_argument("--offloading", action="store_true", help="compare group offloading with the level stream")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if unknown := [name for name in args.classes if name not in BUILDERS]:
        parser.error(f"unknown: {', '.join(unknown)}. Choose from {', '.join(BUILDERS)}.")
    quiet_libraries()
    rows, failed = {}, []
    for name, check in {}.items() if args.offloading else _checks(args.classes, args.quantized).items():
        try:
            rows[name] = check()
        except UserError as error:
            failed.append(f"{name}: {error}")
    rows = offloads() if args.offloading else rows
    print(offload_table(rows) if args.offloading else quantized_table(rows) if args.quantized else table(rows))
    if args.json:
        args.json.write_text(json.dumps({n: r._asdict() for n, r in rows.items()}, indent=1), encoding="utf-8")
    print(*failed, sep="\n", file=sys.stderr)
    sys.exit(bool(failed))


def _checks(classes: Sequence[str], quantized: bool) -> dict[str, Callable[[], Row | QuantizedRow]]:
    """What makes each row, by its name; one for each class, or for each class and quantization."""
    if quantized:
        return {f"{name} {kind}": partial(quantized_row, name, kind) for name in classes or CLASSES for kind in KINDS}
    return {name: partial(row, name) for name in classes or BUILDERS}


if __name__ == "__main__":
    main()
