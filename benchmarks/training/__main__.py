"""Cost of a training step, beside the recipe of diffusers' example train_diffusion_dpo.py on the same model, batch and
LoRA.

    python -m dreambooth_dpo.benchmarks.training --model toybox --steps 10 --batch 8
    python -m dreambooth_dpo.benchmarks.training --model toybox --growth

Every variant runs in a process of its own. Seconds are those of common/clock.py; on the CPU set OMP_NUM_THREADS=1, so
that they are CPU seconds and a busy machine counts less. Memory is the peak of the resident set, on a GPU the peak of
the allocator. Ratios are to the recipe. sd15 and sdxl have full size and random weights: they are meant for GPUs, on
the CPU a step takes minutes. The floor is the time of a step's floating-point operations at the speed of a large matrix
product.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import torch

from ...dpo_core.errors import UserError
from ...dpo_core.settings import TrainSettings
from ..common.clock import Clock
from ..common.command import command_parser, parse_names, write_result
from ..common.tables import print_table
from .growth import growth
from .models import RESOLUTIONS
from .worker import PHASES, Task

PEER = "recipe"
VARIANTS: dict[str, tuple[str, dict]] = {
    PEER: ("peer", {}),
    "plain": ("ours", {}),
    "bank": ("ours", {"reference_bank": 4}),
    "bank+checkpointing": ("ours", {"reference_bank": 4, "memory": "checkpointing"}),
    "bank+low": ("ours", {"reference_bank": 4, "memory": "low"}),
    "recipe bf16": ("peer", {"precision": "bf16"}),
    "bank bf16": ("ours", {"reference_bank": 4, "precision": "bf16"}),
    "bank+compile": ("ours", {"reference_bank": 4, "compile": True}),
}
USUAL = (PEER, "plain", "bank", "bank+checkpointing", "bank+low")
"""The default on the CPU; on a GPU all are measured."""
ROUND_PAIRS = 48
"""Pairs of a round (the default of pairs.min_pairs), over whose steps the cost of a bank is spread."""


def run(task: Task) -> dict:
    """Measure in a new process. Raises UserError with the last line of its error output if it fails."""
    command = [sys.executable, "-m", "dreambooth_dpo.benchmarks.training.worker", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if done.returncode < 0:  # its output says nothing of the signal
            reason = f"ended by signal {-done.returncode}; a system out of memory sends 9"
        variant = f"{task.variant} {task.settings or ''} on {task.model}"
        raise UserError(f"{variant} failed: {reason}. Take a smaller --batch or --resolution.")
    return json.loads(done.stdout.splitlines()[-1])


def peak_flops(device: str, size: int = 2048, times: int = 5) -> float:
    """Floating-point operations per second of the fastest of several float32 matrix products, size x size."""
    clock, seconds = Clock(device), []
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    for _ in range(times):
        begun = clock.now()
        a @ b
        seconds.append(clock.now() - begun)
    return 2 * size**3 / min(seconds)


def spread_bank(
    row: dict, batch: int, draws: int, pairs: int = ROUND_PAIRS, steps: int | None = None, size: int | None = None
) -> float:
    """Pairs per second over a whole round, with the filling of its bank: `steps` steps of `size` pairs visit the draws
    of `pairs` pairs.
    """
    steps, size = steps or TrainSettings().steps, size or TrainSettings().batch_size
    filled = min(steps * size, pairs * draws) * row["bank_seconds_per_draw"]
    return steps * size / (steps * size * row["seconds_per_step"] / batch + filled)


def compare(rows: dict[str, dict], batch: int) -> None:
    """Add to each row its ratios to the recipe, and pairs per second with the bank's cost spread over a round."""
    peer = rows.get(PEER)
    for name, row in rows.items():
        row["round_pairs_per_second"] = spread_bank(row, batch, VARIANTS[name][1].get("reference_bank", 0))
        if not peer:
            continue
        row["speed_ratio"] = row["pairs_per_second"] / peer["pairs_per_second"]
        row["round_speed_ratio"] = row["round_pairs_per_second"] / peer["pairs_per_second"]
        row["memory_ratio"] = row["peak_bytes"] / peer["peak_bytes"]
        # Libraries and weights are the same on both sides.
        added, peer_added = (r["peak_bytes"] - r["resting_bytes"] for r in (row, peer))
        row["added_memory_ratio"] = added / max(1, peer_added)
        if row.get("kept_bytes") and peer.get("kept_bytes"):
            row["kept_ratio"] = row["kept_bytes"] / peer["kept_bytes"]


def floor(task: Task, rows: dict[str, dict]) -> dict:
    """Operations of a step and of its forward, the machine's speed, and the share of it that each variant reaches."""
    one = replace(task, flops=True, steps=1, warm_up=0)
    plain, bank = (run(replace(one, settings=s))["flops"] for s in ({}, {"reference_bank": 1}))
    # The plain step has the reference's forward as well.
    forward, speed = plain - bank, peak_flops(task.device)
    shares = {
        name: bank / speed / row["seconds_per_step"]
        for name, row in rows.items()
        if name != PEER and "bf16" not in name
    }
    return {
        "peak_flops": speed,
        "forward_flops": forward,
        "step_flops": bank,
        "rule_of_three_flops": 3 * forward,
        "floor_seconds": bank / speed,
        "rule_of_three_seconds": 3 * forward / speed,
        "share_of_peak": shares,
    }


def show(task: Task, rows: dict[str, dict], limits: dict) -> None:
    cells = []
    for name, r in rows.items():
        names = ("speed_ratio", "round_speed_ratio", "memory_ratio", "added_memory_ratio", "kept_ratio")
        speed, spread, memory, added, kept = (f"{r[k]:.2f}" if k in r else "" for k in names)
        speeds = (f"{r['seconds_per_step']:.3g}", f"{r['pairs_per_second']:.3g}", speed)
        speeds += (f"{r['round_pairs_per_second']:.3g}", spread)
        kept_mb = f"{r['kept_bytes'] / 1e6:.0f}" if r.get("kept_bytes") else ""
        cells.append([name, *speeds, f"{r['peak_bytes'] / 1e6:.0f}", memory, added, kept_mb, kept])
    title = f"{task.model}, {task.resolution} px, {task.batch} pairs per step, rank {task.rank} on {task.targets}"
    columns = ("variant", "s / step", "pairs / s", "x", "with bank's cost", "x")
    columns += ("peak MB", "x", "added x", "kept MB", "x")
    print_table(f"{title}, {task.device}", columns, cells)
    phases = [[name, *(f"{r['phases'].get(p, 0):.4f}" for p in PHASES)] for name, r in rows.items()]
    print_table("seconds of each phase, measured apart", ("variant", *PHASES), phases)
    step, three, speed = (limits[k] / 1e9 for k in ("step_flops", "rule_of_three_flops", "peak_flops"))
    print(f"a step has {step:.4g} GFLOP of forward and backward (3 forwards: {three:.4g})")
    print(f"floor: {limits['floor_seconds']:.3g} s per step, at the {speed:.4g} GFLOP/s of a matrix product")
    shares = (f"{name} {100 * share:.0f} %" for name, share in limits["share_of_peak"].items())
    print(f"share of that speed: {', '.join(shares)}")


def arguments() -> argparse.Namespace:
    parser = command_parser(__doc__, "benchmark_training")
    parser.add_argument("--model", choices=RESOLUTIONS, default="toybox")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the timed ones")
    parser.add_argument("--batch", type=int, default=4, help="pairs per step")
    parser.add_argument("--resolution", type=int, help="pixels per side; default: the model's own")
    parser.add_argument("--rank", type=int, default=8)
    about_targets = "LoRA layers; attention, the default, is the recipe's"
    parser.add_argument(
        "--targets", choices=("attention", "attention+ff", "all"), default="attention", help=about_targets
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--variants", help=f"some of {', '.join(VARIANTS)}, separated by commas")
    about_growth = "measure seconds per step against resolution, rank and batch instead"
    parser.add_argument("--growth", action="store_true", help=about_growth)
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    usual = USUAL if args.device == "cpu" else tuple(VARIANTS)
    args.variants = parse_names(parser, args.variants, VARIANTS, "variant") if args.variants else usual
    if min(args.steps, args.batch, args.rank) < 1 or args.warm_up < 0:
        parser.error("steps, batch and rank must be at least 1, warm-up at least 0")
    return args


def main() -> None:
    args = arguments()
    torch.set_float32_matmul_precision("highest")
    sizes = {"resolution": args.resolution or RESOLUTIONS[args.model], "batch": args.batch, "steps": args.steps}
    adapter = {"rank": args.rank, "targets": args.targets}
    task = Task(args.model, "ours", device=args.device, **sizes, **adapter, settings={}, warm_up=args.warm_up)
    if args.device == "cpu" and args.model in ("sd15", "sdxl"):
        print(f"{args.model} at full size on the CPU: a step takes minutes")
    try:
        if args.growth:
            growth(task, run, args.out)
            return
        rows = {}
        for name in args.variants:
            side, settings = VARIANTS[name]
            begun = time.perf_counter()
            rows[name] = run(replace(task, variant=side, settings=settings))
            print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        compare(rows, args.batch)
        limits = floor(task, rows)
    except UserError as error:
        raise SystemExit(str(error)) from error
    show(task, rows, limits)
    about = {"task": asdict(task), "torch": torch.__version__, "threads": torch.get_num_threads()}
    path = args.out / f"training_{args.model}_{args.device}.json"
    write_result(path, {**about, "variants": rows, "floor": limits})


if __name__ == "__main__":
    main()
