"""Cost of the pack in ComfyUI: seconds added to its start, and the two heavy nodes against stock ones on the same work.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.host --out runs/benchmark_host.json

Start: importing the pack as ComfyUI does and listing its nodes, after ComfyUI itself is imported; median of several
processes. Sampling: the same batches of toybox pictures by the stock KSampler, VAEDecode and SaveImage functions, and
by the stage of Sample Candidates, which also keeps latents and records; in turns, median of the ratios. Training: DPO
LoRA Train Step against the stock Train LoRA, see stock_trainer.py.
"""

from __future__ import annotations

import statistics

from ..common.command import command_parser, parse_names, write_result
from ..common.in_comfyui import measured
from .stock_trainer import show

PARTS = ("start", "sampling", "training")


def start_cost(processes: int) -> dict:
    """Median seconds over processes: until the nodes are listed, and until their schemas are made as well."""
    rows = [measured("host.pack_start.start_seconds") for _ in range(processes)]
    listed, schemas = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"processes": processes, "listed_s": listed, "with_schemas_s": schemas}


def main() -> None:
    parser = command_parser(__doc__, "benchmark_host.json")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    about_pairs = "pairs per training step; the stock node gets twice as many pictures"
    parser.add_argument("--pairs", type=int, default=4, help=about_pairs)
    args = parser.parse_args()
    parts, found = parse_names(parser, args.parts, PARTS, "part"), {}
    if "start" in parts:
        found["start"] = start = start_cost(args.turns)
        print(f"start: nodes listed after {start['listed_s']:.3f} s, with schemas {start['with_schemas_s']:.3f} s")
    if "sampling" in parts:
        found["sampling"] = sampling = measured("host.stock_sampler.sampling_cost", 32, 4, 12, args.turns)
        seconds = f"stock nodes {sampling['stock_s']:.2f} s, ours {sampling['ours_s']:.2f} s"
        print(f"sampling {sampling['pictures']} pictures: {seconds}")
        print(f"ratio {sampling['ratio_stock_to_ours']:.3f} (above 1: ours is faster)")
    if "training" in parts:
        found["training"] = measured("host.stock_trainer.training_cost", args.pairs, 8, (2, 12), args.turns)
        show(found["training"])
    write_result(args.out, found)


if __name__ == "__main__":
    main()
