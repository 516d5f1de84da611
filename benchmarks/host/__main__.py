"""What the pack costs a ComfyUI: seconds added to its start, and its two heavy nodes against stock ones on the same
work.

    COMFYUI_PATH=~/ComfyUI python -m dreambooth_dpo.benchmarks.host --out runs/benchmark_host.json

Start: importing the pack as ComfyUI does and listing its nodes, in a process in which ComfyUI is imported already;
median of several processes. Sampling: the same batches of toybox pictures by the stock KSampler and VAEDecode
functions, written by the stock SaveImage function, and by Sample Candidates' own stage, which also keeps latents and
records; turn by turn, median of the ratios. Training: DPO LoRA Train Step against the stock Train LoRA, see
host_training.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ...dpo_core.run.files import write_json
from .worker import Quiet, comfyui, open_comfyui

PARTS = ("start", "sampling", "training")
START = """
import asyncio, importlib.util, json, sys, time
sys.path.append(sys.argv[1])
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu = True
import nodes, comfy.samplers, comfy_api.latest
begun = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack_under_test", sys.argv[2] + "/__init__.py", submodule_search_locations=[sys.argv[2]])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
extension = asyncio.run(module.comfy_entrypoint())
classes = asyncio.run(extension.get_node_list())
listed = time.perf_counter()
for node in classes:
    node.GET_SCHEMA()
print(json.dumps([listed - begun, time.perf_counter() - begun]))
"""


def start_cost(times: int) -> dict:
    """Median seconds over processes: until the nodes are listed, and until their schemas are made too (asked for by the
    first page).
    """
    root = str(Path(__file__).parents[2])
    rows = []
    for _ in range(times):
        with (
            tempfile.TemporaryDirectory() as elsewhere
        ):  # in the pack's own folder `import nodes` would find the pack's
            command = [sys.executable, "-c", START, str(comfyui()), root]
            rows.append(
                json.loads(
                    subprocess.run(
                        command, capture_output=True, text=True, check=True, cwd=elsewhere
                    ).stdout.splitlines()[-1]
                )
            )
    listed, schemas = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"processes": times, "listed_s": listed, "with_schemas_s": schemas}


def sampling_cost(batch: int, batches: int, steps: int, turns: int) -> dict:
    """Seconds of both sides on `batches` batches of toybox pictures, and the ratio stock / ours (above 1: ours is
    quicker).
    """
    open_comfyui()
    import torch

    import nodes as stock

    from ...dpo_core.prompts import PromptSet
    from ...dpo_core.settings import SamplingSettings
    from ...nodes.sockets import Candidates, Sampler
    from ...nodes.stages.sample import draw_candidates
    from ...toybox.concepts import concept_from_seed
    from ...toybox.native import native_toybox

    torch.set_num_threads(1)
    model, clip, vae = native_toybox()
    concept = concept_from_seed(0).to_concept()
    prompts = tuple(f"a photo of a {concept.subject} {place}" for place in ("on grass", "in snow"))
    ratios, rows = [], []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        saver = stock.SaveImage()
        saver.output_dir = folder
        for turn in range(turns):
            begun = time.perf_counter()
            text = stock.CLIPTextEncode().encode(clip, prompts[0])[0]
            for i in range(batches):
                empty = stock.EmptyLatentImage().generate(128, 128, batch)[0]
                drawn = stock.common_ksampler(
                    model, turn * batches + i, steps, 1.0, "dpmpp_2m", "normal", text, text, empty
                )[0]
                saver.save_images(stock.VAEDecode().decode(vae, drawn)[0], "stock")
            middle = time.perf_counter()
            each = batch * batches // len(prompts)
            settings = SamplingSettings(
                candidates_per_prompt=each, steps=steps, guidance=1.0, width=64, height=64, batch_size=batch, seed=turn
            )
            handle = Candidates(
                Path(folder) / "run",
                "",
                concept,
                PromptSet(prompts, ("a sks",)),
                settings,
                Sampler("dpmpp_2m", "normal", ""),
            )
            draw_candidates(model, clip, vae, handle, Quiet())
            rows.append((middle - begun, time.perf_counter() - middle))
            ratios.append(rows[-1][0] / rows[-1][1])
    stock_s, ours_s = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "pictures": batch * batches, "batch": batch, "steps": steps, "turns": turns, "stock_s": stock_s, "ours_s": ours_s,
        "ratio_stock_to_ours": statistics.median(ratios), "ratios": ratios,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_host.json"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure; commas between")
    parser.add_argument(
        "--pairs", type=int, default=4, help="of a training step; the stock node gets twice as many pictures"
    )
    args = parser.parse_args()
    parts, found = args.parts.split(","), {}
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    if "start" in parts:
        found["start"] = start = start_cost(args.turns)
        print(
            f"start: nodes listed after {start['listed_s']:.3f} s, with their schemas {start['with_schemas_s']:.3f} s"
        )
    if "sampling" in parts:
        found["sampling"] = sampling = sampling_cost(32, 4, 12, args.turns)
        print(
            f"sampling {sampling['pictures']} pictures: stock KSampler {sampling['stock_s']:.2f} s, ours {sampling['ours_s']:.2f} s"
        )
        print(f"ratio {sampling['ratio_stock_to_ours']:.3f} (above 1: ours is quicker)")
    if "training" in parts:
        from .stock_trainer import show, training_cost

        found["training"] = training_cost(args.pairs, 8, (2, 12), args.turns)
        show(found["training"])
    write_json(args.out, found)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
