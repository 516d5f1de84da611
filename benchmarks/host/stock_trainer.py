"""DPO LoRA Train Step beside ComfyUI's own Train LoRA node: seconds per step on the native toybox.

Both train a LoRA of the same rank on the same denoiser, latents and prompts, with the same number of pictures per step:
float32, on the CPU, one thread, AdamW, no checkpointing. Each node's own function is called for a short and for a long
run. A step is the difference divided by the number of additional steps; the cost of a call itself (adapters, the bank,
curves) is given apart. The sides take turns; seconds are those of common/clock.py. What differs:

- The stock node is supervised: one forward and one backward per picture, no reference. Ours has the reference's forward
  as well. With a backward as two forwards, a picture costs ours 4 forwards and the stock node 3. Both are given:
  seconds per step and seconds per forward. With `reference_bank` ours costs 3 as well, once the bank is filled.
- The stock node runs the whole batch under each picture's prompt and averages the results: n pictures cost n * n. So it
  is measured with the batch, and with one picture at a time (its default) with accumulated gradients, where n cost n.
  Pictures are counted at the denoiser.
- The stock node has a LoRA on every layer, trains norms and biases as well, and adds the product of the LoRA's matrices
  to the weights in every forward. Ours has LoRAs on the layers inside the blocks (`targets: all`), at those layers'
  outputs. The stock node does not clip gradients.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.clock import Clock
from ..common.in_comfyui import Quiet

OURS, BANK = "DPO LoRA Train Step", "DPO LoRA Train Step, filled bank"
BATCH, SINGLE = "Train LoRA, a batch", "Train LoRA, one at a time"
FORWARDS = {OURS: 2.0, BANK: 3.0, BATCH: 3.0, SINGLE: 3.0}
"""Forwards per picture that goes through the denoiser: 3 with a backward. Without a bank every other picture of ours
has a backward.
"""
Side = Callable[[int, int], tuple[float, int]]
"""(steps, seed) -> (seconds, pictures through the denoiser)"""


def training_cost(pairs: int, rank: int, steps: tuple[int, int], turns: int) -> dict:
    """Figures of each side, and the median ratios over turns of theirs to ours (above 1: ours is faster), by step and
    by forward.

    pairs: per step of ours; the stock node gets 2 * pairs pictures. steps: of the short and of the long run.
    """
    import torch

    torch.set_num_threads(1)
    clock, timed = Clock("cpu"), {name: [] for name in FORWARDS}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        sides = _sides(Path(folder), pairs, rank, clock)
        for turn in range(-1, turns):  # the first one is the warm-up
            for name in sides if turn % 2 else reversed(sides):
                runs = [sides[name](count, 2 * turn + i + 2) for i, count in enumerate(steps)]
                if turn >= 0:
                    timed[name].append(step_of(*runs, *steps))
    about = {"pairs": pairs, "pictures": 2 * pairs, "rank": rank, "steps": steps, "turns": turns}
    return {**about, "seconds_are": clock.kind, **figures(timed, 2 * pairs)}


def step_of(short: tuple[float, int], long: tuple[float, int], few: int, many: int) -> tuple[float, float, float]:
    """(seconds, pictures through the denoiser) of a short and a long run -> both of one step, and the seconds of the
    call itself.

    3 s of 2 steps and 7 s of 6: a step takes 1 s, the call 1 s.
    """
    seconds, rows = ((b - a) / (many - few) for a, b in zip(short, long, strict=True))
    return seconds, rows, short[0] - few * seconds


def figures(timed: dict[str, list[tuple[float, float, float]]], pictures: int) -> dict[str, Any]:
    """Medians of each side, from the results of `step_of` in its turns, and ratios of theirs to ours."""
    found: dict[str, Any] = {"sides": {}, "ratios": []}
    for name, turns in timed.items():
        seconds, rows, once = (statistics.median(column) for column in zip(*turns, strict=True))
        forwards = rows * FORWARDS[name]
        found["sides"][name] = {
            "seconds_per_step": seconds,
            "seconds_per_picture": seconds / pictures,
            "through_denoiser_per_step": rows,
            "forwards_per_step": forwards,
            "seconds_per_forward": seconds / forwards,
            "seconds_once": once,
        }
    for theirs in (BATCH, SINGLE):
        for ours in (OURS, BANK):
            both = list(zip(timed[theirs], timed[ours], strict=True))
            by_step = [t[0] / o[0] for t, o in both]
            forwards = [t[1] * FORWARDS[theirs] / (o[1] * FORWARDS[ours]) for t, o in both]
            by_forward = [s / f for s, f in zip(by_step, forwards, strict=True)]
            ratios = {"by_step": statistics.median(by_step), "by_forward": statistics.median(by_forward)}
            found["ratios"].append({"theirs": theirs, "ours": ours, **ratios})
    return found


def _sides(folder: Path, pairs: int, rank: int, clock: Clock) -> dict[str, Side]:
    import nodes as stock

    from ...dpo_core.run.folder import RunFolder
    from ...toybox.native import native_toybox

    model, clip, vae = native_toybox()
    handle = _pairs(folder / "run", (model, clip, vae), pairs)
    with RunFolder(handle.scored.candidates.folder) as run:
        name = handle.scored.candidates.set_name
        latents, prompts = run.latents(name), [c.prompt for c in run.candidates(name)]
    texts = [stock.CLIPTextEncode().encode(clip, prompt)[0][0] for prompt in prompts]

    def ours(bank: int) -> Side:
        widgets = {
            "rank": rank,
            "alpha": float(rank),
            "targets": "all",
            "pairs_per_step": pairs,
            "accumulation": 1,
            "learning_rate": 1e-5,
            "beta": 2000.0,
            "checkpointing": False,
            "memory": "fast",
            "reference_bank": bank,
        }
        return lambda steps, seed: _train_step(
            model, clip, handle, {**widgets, "train_steps": steps, "train_seed": seed}, clock
        )

    def theirs(batch: int, accumulated: int) -> Side:
        inputs = {"batch_size": batch, "grad_accumulation_steps": accumulated, "rank": rank}
        return lambda steps, seed: _train_lora(latents, texts, {**inputs, "steps": steps, "seed": seed}, clock)

    # A run of two steps visits every pair, and so fills a bank of one draw.
    return {OURS: ours(0), BANK: ours(1), BATCH: theirs(2 * pairs, 1), SINGLE: theirs(1, 2 * pairs)}


def _train_step(model: Any, clip: Any, handle: Any, widgets: dict, clock: Clock) -> tuple[float, int]:
    """The stage of our node."""
    from ...nodes.host.curve import CurveFeed
    from ...nodes.stages.train import train_step

    with _counted() as rows:
        begun = clock.now()
        train_step(model, clip, handle, widgets, None, Quiet(), CurveFeed(None))
        return clock.now() - begun, sum(rows)


def _train_lora(latents: Any, texts: list, inputs: dict, clock: Clock) -> tuple[float, int]:
    """The stock node, on a MODEL of its own, on which its wrappers stay."""
    from comfy.model_management import unload_all_models

    from ...toybox.native import native_toybox

    model, _, _ = native_toybox()
    fixed = {
        "learning_rate": 1e-5,
        "optimizer": "AdamW",
        "loss_function": "MSE",
        "training_dtype": "fp32",
        "lora_dtype": "fp32",
        "algorithm": "LoRA",
        "gradient_checkpointing": False,
        "existing_lora": "[None]",
    }
    with _counted() as rows:
        begun = clock.now()
        _stock_node(model=model, latents={"samples": latents.clone()}, positive=list(texts), **fixed, **inputs)
    seconds = clock.now() - begun
    unload_all_models()
    return seconds, sum(rows)


def _stock_node(**inputs: Any) -> None:
    """ComfyUI's Train LoRA. Version 0.3.64 calls it `train`; newer ones call it `execute`, have more inputs, and take
    each in a list.
    """
    from comfy_extras.nodes_train import TrainLoraNode

    if hasattr(TrainLoraNode, "train"):
        TrainLoraNode().train(**inputs)
        return
    newer = {"quantized_backward": False, "checkpoint_depth": 1}
    newer |= {"offloading": False, "bucket_mode": False, "bypass_mode": False}
    TrainLoraNode.execute(**{name: [value] for name, value in (inputs | newer).items()})


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Batch sizes at the denoiser of any MODEL: newer stock trainers work on a MODEL that they load themselves."""
    from comfy.model_base import BaseModel

    rows: list[int] = []
    own = BaseModel.apply_model

    def counted(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(x))
        return own(self, x, *args, **kwargs)

    BaseModel.apply_model = counted
    try:
        yield rows
    finally:
        BaseModel.apply_model = own


def _pairs(folder: Path, toybox: tuple, pairs: int) -> Any:
    """2 * pairs pairs of toybox candidates, so that two steps in a row have different pictures."""
    from ...dpo_core.records import Pair
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.settings import PairSettings
    from ...nodes.sockets import Pairs, Scored
    from .toy_candidates import draw

    drawn = draw(folder, toybox, 2 * pairs, 2)
    with RunFolder(folder) as run:
        run.set_pairs("pairs", [Pair(i, i + 1, 1.0, 1.0) for i in range(0, 4 * pairs, 2)])
    return Pairs(Scored(drawn, (), ()), "pairs", PairSettings())


def show(found: dict) -> None:
    print(f"training, {found['pictures']} pictures per step, rank {found['rank']}, {found['seconds_are']}:")
    for name, side in found["sides"].items():
        step = f"{side['seconds_per_step']:.3f} s per step, {1000 * side['seconds_per_picture']:.1f} ms per picture"
        forwards = f"{side['forwards_per_step']:.0f} forwards of {1000 * side['seconds_per_forward']:.2f} ms"
        print(f"  {name}: {step}, {forwards}, once {side['seconds_once']:.2f} s")
    for r in found["ratios"]:
        ratios = f"{r['by_step']:.2f} by step, {r['by_forward']:.2f} by forward"
        print(f"  {r['theirs']} to {r['ours']}: {ratios} (above 1: ours is faster)")
