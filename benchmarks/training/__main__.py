"""What a training step costs, beside the recipe of diffusers' example train_diffusion_dpo.py on the same model, batch
and LoRA.

    python -m dreambooth_dpo.benchmarks.training --model toybox --steps 10 --batch 8
    python -m dreambooth_dpo.benchmarks.training --model toybox --growth

Every variant runs in a process of its own. On the CPU, seconds are those that the process computed for, so that a busy
machine counts less (set OMP_NUM_THREADS=1), and memory is the peak of the resident set; on a GPU, the wall clock and
the most that was allocated. Ratios are to the recipe. sd15 and sdxl have full size and random weights: meant for GPUs,
on the CPU a step takes minutes. The floor is the time that a step's floating-point operations would take at the speed
of a large matrix product.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from ...dpo_core.errors import UserError
from ...dpo_core.peak import synchronise
from ...dpo_core.run.files import write_json
from ...dpo_core.settings import TrainSettings
from .growth import growth
from .models import RESOLUTIONS
from .worker import PHASES, Task, clock

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
"""Measured where nothing else is asked for on the CPU; on a GPU all are."""
ROUND_PAIRS = 48
"""Pairs of a usual round (the default of pairs.min_pairs), over whose steps a bank's cost is spread."""


def run(task: Task) -> dict:
    """Measure in a fresh process. Raises UserError with the process's last words where it fails."""
    command = [sys.executable, "-m", "dreambooth_dpo.benchmarks.training.worker", json.dumps(asdict(task))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        if done.returncode < 0:  # what it had said before is not why
            words = [f"it was ended by signal {-done.returncode}; 9 is what a system without memory sends"]
        raise UserError(
            f"{task.variant} {task.settings or ''} on {task.model} failed: {words[-1]}. Take a smaller --batch or --resolution."
        )
    return json.loads(done.stdout.splitlines()[-1])


def peak_flops(device: torch.device, size: int = 2048, times: int = 5) -> float:
    """Floating-point operations a second of the best of several float32 matrix products, size x size."""
    a, b = (torch.randn(size, size, device=device) for _ in range(2))
    seconds = []
    for _ in range(times):
        synchronise(device)
        begun = clock(device)
        a @ b
        synchronise(device)
        seconds.append(clock(device) - begun)
    return 2 * size**3 / min(seconds)


def spread_bank(
    row: dict, batch: int, draws: int, pairs: int = ROUND_PAIRS, steps: int | None = None, size: int | None = None
) -> float:
    """Pairs a second over a whole round, the filling of its bank included: `steps` steps of `size` pairs visit draws of
    `pairs` pairs.
    """
    steps, size = steps or TrainSettings().steps, size or TrainSettings().batch_size
    filled = min(steps * size, pairs * draws) * row["bank_seconds_per_draw"]
    return steps * size / (steps * size * row["seconds_per_step"] / batch + filled)


def compare(rows: dict[str, dict], batch: int) -> None:
    """Add to each row its ratios to the recipe, and pairs a second with the bank's cost spread over a round."""
    peer = rows.get(PEER)
    for name, row in rows.items():
        draws = VARIANTS[name][1].get("reference_bank", 0)
        row["round_pairs_per_second"] = spread_bank(row, batch, draws)
        if peer:
            row["speed_ratio"] = row["pairs_per_second"] / peer["pairs_per_second"]
            row["round_speed_ratio"] = row["round_pairs_per_second"] / peer["pairs_per_second"]
            row["memory_ratio"] = row["peak_bytes"] / peer["peak_bytes"]
            # What training itself adds: the libraries and weights are the same on both sides.
            if row.get("kept_bytes") and peer.get("kept_bytes"):
                row["kept_ratio"] = row["kept_bytes"] / peer["kept_bytes"]
            row["added_memory_ratio"] = (row["peak_bytes"] - row["resting_bytes"]) / max(
                1, peer["peak_bytes"] - peer["resting_bytes"]
            )


def floor(task: Task, rows: dict[str, dict]) -> dict:
    """Operations of one step with and without the reference's forward, the machine's speed, and what share of it the
    variants reach.
    """
    one = replace(task, flops=True, steps=1, warm_up=0)
    plain = run(replace(one, settings={}))["flops"]
    bank = run(replace(one, settings={"reference_bank": 1}))["flops"]
    # The plain step has one forward more, by the reference; where its adapter is 0, without the adapter's small
    # products.
    forward = plain - bank
    speed = peak_flops(torch.device(task.device))
    found = {"peak_flops": speed, "forward_flops": forward, "step_flops": bank, "rule_of_three_flops": 3 * forward}
    found |= {"floor_seconds": bank / speed, "rule_of_three_seconds": 3 * forward / speed, "share_of_peak": {}}
    for name, row in rows.items():
        if name != PEER and "bf16" not in name:
            found["share_of_peak"][name] = bank / speed / row["seconds_per_step"]
    return found


def show(task: Task, rows: dict[str, dict], limits: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    title = f"{task.model}, {task.resolution} px, {task.batch} pairs a step, rank {task.rank} on {task.targets}, {task.device}"
    table = Table(
        "variant",
        "s / step",
        "pairs / s",
        "x",
        "with bank's cost",
        "x",
        "peak MB",
        "x",
        "added x",
        "kept MB",
        "x",
        title=title,
    )
    for name, r in rows.items():
        ratio = [
            f"{r.get(k, float('nan')):.2f}"
            for k in ("speed_ratio", "round_speed_ratio", "memory_ratio", "added_memory_ratio")
        ]
        speeds = (
            f"{r['seconds_per_step']:.3g}",
            f"{r['pairs_per_second']:.3g}",
            ratio[0],
            f"{r['round_pairs_per_second']:.3g}",
            ratio[1],
        )
        kept = (
            (f"{r['kept_bytes'] / 1e6:.0f}", f"{r.get('kept_ratio', float('nan')):.2f}")
            if r.get("kept_bytes")
            else ("", "")
        )
        table.add_row(name, *speeds, f"{r['peak_bytes'] / 1e6:.0f}", *ratio[2:], *kept)
    console.print(table)
    phases = Table("variant", *PHASES, title="seconds of each phase, measured apart")
    for name, r in rows.items():
        phases.add_row(name, *(f"{r['phases'].get(p, 0):.4f}" for p in PHASES))
    console.print(phases)
    console.print(
        f"floor: {limits['step_flops'] / 1e9:.4g} GFLOP forward and backward (3 forwards: {limits['rule_of_three_flops'] / 1e9:.4g}), "
        f"matrix product {limits['peak_flops'] / 1e9:.4g} GFLOP/s: {limits['floor_seconds']:.3g} s a step"
    )
    console.print(
        "share of the peak: "
        + ", ".join(f"{name} {100 * share:.0f} %" for name, share in limits["share_of_peak"].items())
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=RESOLUTIONS, default="toybox")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before them")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
    parser.add_argument("--resolution", type=int, help="pixels a side; else the model's own")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument(
        "--targets",
        choices=("attention", "attention+ff", "all"),
        default="attention",
        help="attention is the recipe's own",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--variants", help=f"some of {', '.join(VARIANTS)}; commas between")
    parser.add_argument(
        "--growth", action="store_true", help="seconds a step against resolution, rank and batch, instead"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_training"))
    args = parser.parse_args()
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    args.variants = args.variants.split(",") if args.variants else list(VARIANTS if args.device != "cpu" else USUAL)
    if unknown := [v for v in args.variants if v not in VARIANTS]:
        parser.error(f"no variant {unknown[0]!r}; variants are {', '.join(VARIANTS)}")
    if min(args.steps, args.batch, args.rank) < 1 or args.warm_up < 0:
        parser.error("steps, batch and rank are at least 1, warm-up at least 0")
    return args


def main() -> None:
    args = arguments()
    torch.set_float32_matmul_precision("highest")
    resolution = args.resolution or RESOLUTIONS[args.model]
    task = Task(
        args.model,
        "ours",
        resolution,
        args.batch,
        args.steps,
        args.device,
        args.rank,
        args.targets,
        {},
        warm_up=args.warm_up,
    )
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
    path = args.out / f"training_{args.model}_{args.device}.json"
    write_json(
        path,
        {
            "task": asdict(task),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "variants": rows,
            "floor": limits,
        },
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
