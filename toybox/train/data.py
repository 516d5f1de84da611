"""Training images for the toybox models: scenes, renders and captions from one seed."""

from __future__ import annotations

import numpy as np
import torch

from ..captions import caption, full_caption
from ..world import Scene, random_scene, render


def scenes_and_images(count: int, seed: int) -> tuple[list[Scene], torch.Tensor]:
    """`count` random scenes and their renders as uint8 [count, 3, 64, 64]."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    pixels = np.stack([render(s, int(rng.integers(2**31))) for s in scenes])
    return scenes, torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def to_model_range(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float -1..1."""
    return pixels.float().div(127.5).sub(1)


def captions_for(scenes: list[Scene], rng: np.random.Generator, **chances: float) -> list[str]:
    return [caption(s, rng, **chances) for s in scenes]


def distinct_scenes(count: int, seed: int) -> list[Scene]:
    """Scenes whose full captions all differ, for top-1 retrieval."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        scene = random_scene(rng)
        found.setdefault(full_caption(scene), scene)
    return list(found.values())


def cosine_with_warmup(step: int, steps: int, warmup: int = 100) -> float:
    """Factor on the learning rate, 0..1."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, steps - warmup))) * 0.98 + 0.02
