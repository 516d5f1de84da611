"""Predicted peak memory of full-size models: of a training step at every memory level, and of sampling.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.memory --out runs/memory [--only sd15,sdxl]
    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.memory --check sd15:fp32:512:1 [--levels fast]

Run it by the Python of that ComfyUI. Models are built by its classes at full size, without data; the pack's own step
runs on them (dpo_core/training/memory/predict.py). LoRA, rank and targets are those that are auto for the family.
`--check` runs the real step on the CPU, in a process of its own for each level, and compares: live bytes by the same
counter, and the process's resident set. Writes memory.json and memory.md, or memory_check.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

import torch

from ...dpo_core.training.memory.levels import LEVELS
from ..common.command import command_parser, parse_names, parse_numbers, write_result
from ..common.in_comfyui import measured
from ..common.tables import print_table
from .tables import CHECK_COLUMNS, check_lines, columns, lines, markdown

WEIGHTS = ("fp32", "bf16", "fp8")
MODELS = ("sd15", "sdxl", "flux", "klein4", "klein9", "zimage", "qwen")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__, "memory")
    parser.add_argument("--only", default=",".join(MODELS), help="models, commas between; default: %(default)s")
    parser.add_argument("--weights", default=",".join(WEIGHTS), help="types of weights; default: %(default)s")
    parser.add_argument("--sides", type=parse_numbers, default="512,768,1024", help="pixels; default: %(default)s")
    parser.add_argument("--pairs", type=parse_numbers, default="1,2,4", help="pairs per step; default: %(default)s")
    parser.add_argument("--levels", default=",".join(LEVELS), help="memory levels; default: %(default)s")
    about_check = "compare with real steps on the CPU: model:weights:side:pairs, commas between"
    parser.add_argument("--check", default="", help=about_check)
    args = parser.parse_args(given)
    args.only = parse_names(parser, args.only, MODELS, "model")
    args.weights = parse_names(parser, args.weights, WEIGHTS, "type of weights")
    args.levels = parse_names(parser, args.levels, LEVELS, "memory level")
    cases = [case.split(":") for case in filter(None, args.check.split(","))]
    if any(len(case) != 4 or case[0] not in MODELS or case[1] not in WEIGHTS for case in cases):
        parser.error(f"--check takes model:weights:side:pairs, such as sd15:fp32:512:1, not {args.check!r}")
    args.check = [(name, weights, int(side), int(pairs)) for name, weights, side, pairs in cases]
    return args


def check(args: argparse.Namespace) -> list[dict[str, Any]]:
    # glibc's allocator keeps freed blocks below 32 MB, which the resident set then counts.
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "1000000")
    rows = []
    for case in args.check:
        for level in args.levels:
            rows.append(measured("memory.worker.measurement", *case, level))
            print_table("Predicted and real", CHECK_COLUMNS, check_lines(rows[-1:]))
    return rows


def main() -> None:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"torch": torch.__version__}
    if args.check:
        rows = check(args)
        print_table("Predicted and real", CHECK_COLUMNS, check_lines(rows))
        write_result(args.out / "memory_check.json", about | {"rows": rows})
        return
    rows = []
    for name in args.only:
        for weights in args.weights:
            rows += measured("memory.worker.predictions", name, weights, args.sides, args.pairs, args.levels)
            (args.out / "memory.md").write_text(markdown(rows, args.levels), encoding="utf-8")
            write_result(args.out / "memory.json", about | {"rows": rows})
    print_table("Predicted peak, GB", columns(args.levels), lines(rows, args.levels))


if __name__ == "__main__":
    main()
