"""Measures the toybox models by oracle and retrieval: printed after training, and by `... train check`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..captions import full_caption
from ..oracle import Oracle
from .data import distinct_scenes

HELD_OUT_SEED = 987_654


def base_quality(
    pipeline: Path, count: int = 200, steps: int = 14, guidance: float = 4.0, device: str = "cpu"
) -> dict[str, float]:
    """Shares (0..1) of images, drawn from full captions of held-out scenes, that the oracle finds right."""
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
    from ...dpo_core.settings import SamplingSettings

    scenes = distinct_scenes(count, HELD_OUT_SEED)
    model = DiffusersTextToImage(load_pipeline(pipeline, device))
    settings = SamplingSettings(steps=steps, guidance=guidance, width=64, height=64)
    latents = []
    for first in range(0, count, 32):
        part = scenes[first : first + 32]
        latents.append(model.sample([full_caption(s) for s in part], [first + i for i in range(len(part))], settings))
    verdict = Oracle().judge(model.decode(torch.cat(latents)), scenes)
    return {name: float(np.mean(right)) for name, right in {**verdict.parts, "all_right": verdict.all_right}.items()}


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
