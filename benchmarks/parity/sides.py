"""The two sides of a run: the same stages of the loop on the pack's two backends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...dpo_core.backends.comfyui import ComfyTextToImage, diffusers_names, export_of, lora_prefixes
from ...dpo_core.backends.diffusers.model import DiffusersTextToImage
from ...dpo_core.backends.diffusers.pipeline_model import PipelineTextToImage
from ...dpo_core.families import AUTO, family_of, training_for, unset_as_auto
from ...dpo_core.families import Family as FamilyValues
from ...dpo_core.loop.rounds import Loop
from ...dpo_core.prompts import PromptSet
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.settings import AdapterSettings, LoopSettings, PairSettings, SamplingSettings, TrainSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.lora_export import Part
from .checkpoint import Both
from .families import Family

WIDTH, HEIGHT = 96, 64
"""Of the pictures: unequal, so that sides that are swapped show. Unit: pixels."""
PROMPTS = ("a sks dog on a beach at sunset, with a red hat", "a sks dog in the snow")
ADAPTER = AdapterSettings(rank=4, alpha=4.0, targets="all")


@dataclass(frozen=True)
class StandInScorer:
    """Scores a picture by its cosine with a fixed random one: any change of a picture changes its score."""

    name: str
    seed: int
    fingerprint: str = "stand-in"

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """Cosines float64 [n] of pictures uint8 [n, H, W, 3], gray being 0."""
        weights = np.random.default_rng(self.seed).normal(size=images[0].size)
        centred = images.reshape(len(images), -1) - 127.5
        return centred @ weights / (np.linalg.norm(centred, axis=1) * np.linalg.norm(weights))


SCORERS = (StandInScorer("fidelity", 1), StandInScorer("alignment", 2))


@dataclass(frozen=True)
class Side:
    """One backend with its run folder, and the family whose values it took."""

    loop: Loop
    family: FamilyValues


def settings_of(family: Family, steps: int) -> LoopSettings:
    """steps: of training, two pairs each."""
    sampling = SamplingSettings(
        steps=family.steps, guidance=family.guidance, width=WIDTH, height=HEIGHT, candidates_per_prompt=6, batch_size=4
    )
    train = TrainSettings(steps=steps, batch_size=2, log_every=1, checkpoint_every=steps, memory="checkpointing")
    return LoopSettings(
        rounds=1, sampling=sampling, pairs=PairSettings(margin=0.2), adapter=ADAPTER,
        train=unset_as_auto(train, AUTO["train"]), sweep=False,
    )  # fmt: skip


def headless(both: Both, family: Family, folder: Path, steps: int) -> Side:
    """The run on the pipeline of diffusers."""
    if family.pipeline == "StableDiffusionPipeline":
        model: Any = DiffusersTextToImage(both.pipe)
        kind = "eps"
    else:
        model = PipelineTextToImage(both.pipe, "fp32", WIDTH, HEIGHT)
        kind = "flow" if model.driven.flow else "eps"
    settings = settings_of(family, steps)
    adapter = Adapter(model.denoiser, ADAPTER, seed=settings.sampling.seed)
    found = family_of(family.pipeline, kind)
    return _side(model, adapter, found, settings, model.latent_shape(settings.sampling), folder)


def hosted(both: Both, family: Family, folder: Path, steps: int, shift: float | None) -> Side:
    """The run on ComfyUI's MODEL. shift: that of its sigmas in place of the MODEL's own, see `shift_of`."""
    patcher = both.patcher if shift is None else shifted(both.patcher, shift)
    model = ComfyTextToImage(patcher, both.clip, both.vae, WIDTH, HEIGHT, *family.sampler)
    settings = settings_of(family, steps)
    names = diffusers_names(both.patcher.model)
    adapter = Adapter(model.denoiser, ADAPTER, seed=settings.sampling.seed, device=model.device, names=names)
    model.encode_texts(PROMPTS)
    return _side(model, adapter, model.family, settings, model.latent_shape, folder)


def _side(
    model: Any, adapter: Adapter, found: FamilyValues, settings: LoopSettings, shape: Sequence[int], folder: Path
) -> Side:
    settings = settings.model_copy(update={"train": training_for(settings.train, found, shape)})
    prompts = PromptSet(PROMPTS, ("a sks dog at night",))
    return Side(Loop(RunFolder(folder), model, adapter, prompts, SCORERS, (), settings), found)


def shift_of(scheduler: Any) -> float | None:
    """mu of the shift exp(mu) of a scheduler that has drawn with `simple` times; None where its shift is fixed.

    From its second level s, which was 1 - 1 / steps before: s = exp(mu) t / (1 + (exp(mu) - 1) t).
    """
    if not scheduler.config.get("use_dynamic_shifting"):
        return None
    level, time = float(scheduler.sigmas[1]), 1 - 1 / (len(scheduler.sigmas) - 1)
    return math.log(level * (1 - time) / ((1 - level) * time))


def shifted(patcher: Any, mu: float) -> Any:
    """The MODEL with another shift, by ComfyUI's node ModelSamplingFlux."""
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return ModelSamplingFlux().patch(patcher, mu, mu, 1024, 1024)[0]


def places(both: Both, layers: Sequence[str]) -> Mapping[str, tuple[Part, ...]]:
    """For each of ComfyUI's layers those of diffusers' model that hold its rows, without the component's name."""
    prefixes = lora_prefixes(both.patcher.model, layers)
    parts = export_of(both.patcher.model, prefixes).parts
    return {
        layer: tuple(Part(part.name.partition(".")[2], part.rows) for part in parts[prefix])
        for layer, prefix in prefixes.items()
        if prefix in parts
    }


@torch.no_grad()
def same_start(ours: Adapter, theirs: Adapter, found: Mapping[str, tuple[Part, ...]]) -> bool:
    """Give the adapter of diffusers' model the A of ComfyUI's; returns whether it had them already."""
    same = True
    for layer, parts in found.items():
        for part in parts:
            down = theirs.policy[part.name].down
            wanted = ours.policy[layer].down.view(down.shape)
            same = same and torch.equal(down, wanted)
            down.copy_(wanted)
    theirs.freeze_reference()
    return same
