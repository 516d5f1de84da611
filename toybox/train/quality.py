"""Measures the toybox models by oracle and retrieval: printed after training, and by `... train check`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..captions import full_caption
from ..oracle import Oracle
from .data import distinct_scenes
from .few_steps import STUDENT_STEPS, TEACHER_STEPS

HELD_OUT_SEED = 987_654


def base_quality(
    pipeline: Path,
    count: int = 200,
    steps: int = 14,
    guidance: float = 4.0,
    device: str = "cpu",
    lora: Path | None = None,
) -> dict[str, float]:
    """Shares (0..1) of images, drawn from full captions of held-out scenes, that the oracle finds right."""
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
    from ...dpo_core.settings import SamplingSettings

    scenes = distinct_scenes(count, HELD_OUT_SEED)
    model = DiffusersTextToImage(load_pipeline(pipeline, device, lora))
    settings = SamplingSettings(steps=steps, guidance=guidance, width=64, height=64)
    latents = []
    for first in range(0, count, 32):
        part = scenes[first : first + 32]
        latents.append(model.sample([full_caption(s) for s in part], [first + i for i in range(len(part))], settings))
    verdict = Oracle().judge(model.decode(torch.cat(latents)), scenes)
    return {name: float(np.mean(right)) for name, right in {**verdict.parts, "all_right": verdict.all_right}.items()}


def few_steps_quality(pipeline: Path, lora: Path, count: int = 200, device: str = "cpu") -> dict[str, float]:
    """Shares (0..1) of all right pictures, without guidance: in few steps with the LoRA and without, and in many."""

    def share(steps: int, given: Path | None = None) -> float:
        return base_quality(pipeline, count, steps, 1.0, device, given)["all_right"]

    few = {"with the LoRA": share(STUDENT_STEPS, lora), "without": share(STUDENT_STEPS)}
    return {**few, f"in {TEACHER_STEPS} steps": share(TEACHER_STEPS)}


def retrieval(folder: Path, count: int = 500, seed: int = HELD_OUT_SEED) -> float:
    """Top-1 retrieval (0..1) of `count` fresh renders among their full captions.

    The model is loaded through open_clip, as the scorers load it.
    """
    from ...metrics.embedders import OpenClipEmbedder
    from ..world import render

    scenes = distinct_scenes(count, seed)
    embedder = OpenClipEmbedder(folder)
    images = embedder.embed_images(np.stack([render(s, seed + i) for i, s in enumerate(scenes)]))
    texts = embedder.embed_texts([full_caption(s) for s in scenes])
    return float(np.mean((images @ texts.T).argmax(1) == np.arange(count)))
