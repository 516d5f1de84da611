"""DPO LoRA Train Step beside ComfyUI's own Train LoRA node: seconds a step on the native toybox.

Both train a LoRA of one rank on the same denoiser, latents and prompts, with as many pictures a step: float32, on the
CPU, one thread, AdamW, nothing computed again in the backward pass. Each node's own function is called for a short and
for a long run, and a step costs the difference by the steps between: what a call does once (adapters, the bank, curves)
is left out, and stands beside it. The sides take turns; seconds are those of clock.py. What is not equal:

- Theirs is supervised: a forward and a backward for each picture, and no reference. Ours has a forward more, by the reference. With a
  backward as two forwards, a picture costs ours 4 forwards and theirs 3; both are given, seconds a step and seconds a forward. Where
  `reference_bank` keeps the reference's errors, ours costs 3 as well, once the bank is filled.
- Theirs runs the whole batch under each of its pictures' prompts and takes the mean of what they give: n pictures cost n * n. So it is
  measured at that, and with one picture at a time (its default) whose gradients it adds up: n cost n. What goes through the denoiser is
  counted.
- Theirs has a LoRA on every layer, trains norms and biases as well, and adds the product of the LoRA's matrices to the weights in every
  forward. Ours has them on the layers inside the blocks (`targets: all`), at those layers' outputs. Theirs does not clip gradients.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.clock import Clock
from .worker import Quiet, open_comfyui

OURS, BANK = "DPO LoRA Train Step", "DPO LoRA Train Step, filled bank"
BATCH, SINGLE = "Train LoRA, a batch", "Train LoRA, one at a time"
FORWARDS = {OURS: 2.0, BANK: 3.0, BATCH: 3.0, SINGLE: 3.0}
"""Forwards' worth of a picture that goes through the denoiser: 3 with a backward; of ours without a bank every other
one has it.
"""


def training_cost(pairs: int, rank: int, steps: tuple[int, int], turns: int) -> dict:
    """Figures of each side, and the median ratios over turns of theirs to ours (above 1: ours is quicker), by step and
    by forward.

    pairs: a step of ours; theirs takes 2 * pairs pictures. steps: of the short and of the long run.
    """
    open_comfyui()
    import torch

    torch.set_num_threads(1)
    clock, timed = Clock("cpu"), {name: [] for name in FORWARDS}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        sides = _sides(Path(folder), pairs, rank, clock)
        for turn in range(-1, turns):  # the first one warms up
            for name in sides if turn % 2 else reversed(sides):
                runs = [sides[name](count, 2 * turn + i + 2) for i, count in enumerate(steps)]
                if turn >= 0:
                    timed[name].append(step_of(*runs, *steps))
    about = {
        "pairs": pairs,
        "pictures": 2 * pairs,
        "rank": rank,
        "steps": steps,
        "turns": turns,
        "seconds_are": clock.kind,
    }
    return about | figures(timed, 2 * pairs)


def step_of(short: tuple[float, int], long: tuple[float, int], few: int, many: int) -> tuple[float, float, float]:
    """(seconds, pictures through the denoiser) of a short and a long run -> both of one step, and the seconds of what a
    call does once.

    3 s of 2 steps and 7 s of 6: a step is 1 s, and 1 s is left.
    """
    seconds, rows = ((b - a) / (many - few) for a, b in zip(short, long, strict=True))
    return seconds, rows, short[0] - few * seconds


def figures(timed: dict[str, list[tuple[float, float, float]]], pictures: int) -> dict[str, Any]:
    """Medians of each side, from (seconds a step, pictures through the denoiser, seconds once) of its turns; ratios of
    theirs to ours.
    """
    found: dict[str, Any] = {"sides": {}, "ratios": []}
    for name, turns in timed.items():
        seconds, rows, once = (statistics.median(column) for column in zip(*turns, strict=True))
        found["sides"][name] = {
            "seconds_per_step": seconds, "seconds_per_picture": seconds / pictures, "through_denoiser_per_step": rows,
            "forwards_per_step": rows * FORWARDS[name], "seconds_per_forward": seconds / (rows * FORWARDS[name]), "seconds_once": once,
        }  # fmt: skip
    for theirs in (BATCH, SINGLE):
        for ours in (OURS, BANK):
            both = zip(timed[theirs], timed[ours], strict=True)
            steps = [(t[0] / o[0], t[1] * FORWARDS[theirs] / (o[1] * FORWARDS[ours])) for t, o in both]
            by_step, by_forward = (
                statistics.median(s for s, _ in steps),
                statistics.median(s / worth for s, worth in steps),
            )
            found["ratios"].append({"theirs": theirs, "ours": ours, "by_step": by_step, "by_forward": by_forward})
    return found


def _sides(folder: Path, pairs: int, rank: int, clock: Clock) -> dict[str, Callable[[int, int], tuple[float, int]]]:
    """Of each side: (steps, seed) -> seconds, and pictures that went through the denoiser."""
    import nodes as stock

    from ...dpo_core.run.folder import RunFolder
    from ...toybox.native import native_toybox

    model, clip, vae = native_toybox()
    handle = _pairs(folder / "run", model, clip, vae, pairs)
    with RunFolder(handle.scored.candidates.folder) as run:
        name = handle.scored.candidates.set_name
        latents, prompts = run.latents(name), [c.prompt for c in run.candidates(name)]
    texts = [stock.CLIPTextEncode().encode(clip, prompt)[0][0] for prompt in prompts]

    def ours(bank: int) -> Callable[[int, int], tuple[float, int]]:
        return lambda steps, seed: _train_step(model, clip, handle, bank, pairs, rank, steps, seed, clock)

    def theirs(batch: int, accumulated: int) -> Callable[[int, int], tuple[float, int]]:
        return lambda steps, seed: _train_lora(latents, texts, batch, accumulated, rank, steps, seed, clock)

    return {OURS: ours(0), BANK: ours(1), BATCH: theirs(2 * pairs, 1), SINGLE: theirs(1, 2 * pairs)}


def _train_step(
    model, clip, handle, bank: int, pairs: int, rank: int, steps: int, seed: int, clock: Clock
) -> tuple[float, int]:
    """Our node's stage.

    `bank`: draws of each pair; a run of two steps visits every pair, and so fills a bank of one.
    """
    from ...nodes.host.curve import CurveFeed
    from ...nodes.stages.train import train_step

    widgets = {
        "rank": rank, "alpha": float(rank), "targets": "all", "train_steps": steps, "pairs_per_step": pairs, "accumulation": 1,
        "learning_rate": 1e-5, "beta": 2000.0, "checkpointing": False, "memory": "fast", "reference_bank": bank, "train_seed": seed,
    }  # fmt: skip
    with _counted() as rows:
        begun = clock.now()
        train_step(model, clip, handle, widgets, None, Quiet(), CurveFeed(None))
        return clock.now() - begun, sum(rows)


def _train_lora(
    latents, texts: list, batch: int, accumulated: int, rank: int, steps: int, seed: int, clock: Clock
) -> tuple[float, int]:
    """The stock node on a MODEL of its own, which its wrappers stay on."""
    from comfy.model_management import unload_all_models

    from ...toybox.native import native_toybox

    model, _, _ = native_toybox()
    with _counted() as rows:
        begun = clock.now()
        _stock_trainer(
            model=model, latents={"samples": latents.clone()}, positive=list(texts), batch_size=batch, grad_accumulation_steps=accumulated,
            steps=steps, learning_rate=1e-5, rank=rank, optimizer="AdamW", loss_function="MSE", seed=seed, training_dtype="fp32",
            lora_dtype="fp32", algorithm="LoRA", gradient_checkpointing=False, existing_lora="[None]",
        )  # fmt: skip
    seconds = clock.now() - begun
    unload_all_models()
    return seconds, sum(rows)


def _stock_trainer(**inputs: Any) -> None:
    """Core's own node. 0.3.64 calls it `train`; newer hosts call it `execute`, ask for more, and put each input into a
    list.
    """
    from comfy_extras.nodes_train import TrainLoraNode

    if hasattr(TrainLoraNode, "train"):
        TrainLoraNode().train(**inputs)
        return
    newer = {
        "quantized_backward": False,
        "checkpoint_depth": 1,
        "offloading": False,
        "bucket_mode": False,
        "bypass_mode": False,
    }
    TrainLoraNode.execute(**{name: [value] for name, value in (inputs | newer).items()})


@contextmanager
def _counted() -> Iterator[list[int]]:
    """The batch sizes that go through any MODEL's denoiser: newer trainers of core's work on a MODEL that they load
    themselves.
    """
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


def _pairs(folder: Path, model: Any, clip: Any, vae: Any, pairs: int) -> Any:
    """2 * pairs pairs of toybox candidates: a step's pictures differ from the next one's."""
    from ...dpo_core.prompts import PromptSet
    from ...dpo_core.records import Pair
    from ...dpo_core.run.folder import RunFolder
    from ...dpo_core.settings import PairSettings, SamplingSettings
    from ...nodes.sockets import Candidates, Pairs, Sampler, Scored
    from ...nodes.stages.sample import draw_candidates
    from ...toybox.concepts import concept_from_seed

    concept = concept_from_seed(0).to_concept()
    prompts = tuple(f"a photo of a {concept.subject} {place}" for place in ("on grass", "in snow"))
    settings = SamplingSettings(candidates_per_prompt=2 * pairs, steps=2, guidance=1.0, width=64, height=64)
    empty = Candidates(folder, "", concept, PromptSet(prompts, ("a sks",)), settings, Sampler("dpmpp_2m", "normal", ""))
    drawn, _ = draw_candidates(model, clip, vae, empty, Quiet())
    with RunFolder(folder) as run:
        run.set_pairs("pairs", [Pair(i, i + 1, 1.0, 1.0) for i in range(0, 4 * pairs, 2)])
    return Pairs(Scored(drawn, (), ()), "pairs", PairSettings())


def show(found: dict) -> None:
    """Print the figures as lines."""
    print(f"training, {found['pictures']} pictures a step, rank {found['rank']}, {found['seconds_are']}:")
    for name, side in found["sides"].items():
        print(
            f"  {name}: {side['seconds_per_step']:.3f} s a step, {1000 * side['seconds_per_picture']:.1f} ms a picture, "
            f"{side['forwards_per_step']:.0f} forwards' worth of {1000 * side['seconds_per_forward']:.2f} ms, "
            f"once {side['seconds_once']:.2f} s"
        )
    for r in found["ratios"]:
        print(
            f"  {r['theirs']} to {r['ours']}: {r['by_step']:.2f} by step, {r['by_forward']:.2f} by forward (above 1: ours is quicker)"
        )
