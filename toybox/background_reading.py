"""How the oracle reads a background: by statistics of three regions that no subject reaches.

Frozen with the oracle; its docstring says what is measured and how its numbers were chosen (oracle.py).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .world import BACKGROUNDS, SIZE, draw_background

# Smallest standard deviations, in grey values: mean, standard deviation, differences. They allow for the inexact
# rendering of a VAE or sampler.
FLOORS = (12.0, 6.0, 5.0)


def _difference(grey: np.ndarray, lag: int, axis: int) -> np.ndarray:
    """Mean |difference| of grey values `lag` pixels apart along an axis: [n, h, w] -> [n, 1]."""
    grey = np.moveaxis(grey, axis, 1)
    return np.abs(grey[:, lag:] - grey[:, :-lag]).mean((1, 2))[:, None]


def _region_statistics(region: np.ndarray) -> np.ndarray:
    """Statistics of a region: [n, h, w, 3] float -> [n, 10].

    Mean RGB, std RGB, differences of grey at 4 pixels and at 1, each to the right and downwards.
    """
    grey = region.mean(-1)
    differences = [_difference(grey, lag, axis) for lag in (4, 1) for axis in (2, 1)]
    return np.concatenate([region.mean((1, 2)), region.std((1, 2)), *differences], axis=1)


def background_statistics(images: np.ndarray) -> np.ndarray:
    """uint8 or float images [n, 64, 64, 3] -> float [n, 3 regions, 10 statistics], in grey values."""
    pixels = np.asarray(images, np.float32)
    return np.stack([_region_statistics(r) for r in (pixels[:, :, :9], pixels[:, :, 55:], pixels[:, :5])], axis=1)


def _blurred(images: np.ndarray) -> np.ndarray:
    """2x2 average-pooled and repeated to the old size, which imitates the textures of a VAE."""
    pooled = images.reshape(len(images), SIZE // 2, 2, SIZE // 2, 2, 3).mean((2, 4))
    return pooled.repeat(2, axis=1).repeat(2, axis=2)


@lru_cache(maxsize=1)
def _class_statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (at least FLOORS) of the statistics over fixed drawings.

    Both [10 backgrounds, 3, 10].
    """
    floors = np.repeat(FLOORS, (3, 3, 4)).astype(np.float32)
    means, deviations = [], []
    for number, name in enumerate(BACKGROUNDS):
        drawn = np.stack([draw_background(name, np.random.default_rng([711, number, i])) for i in range(32)])
        seen = background_statistics(np.concatenate([drawn, _blurred(drawn)]).clip(0, 255))
        means.append(seen.mean(0))
        deviations.append(np.maximum(seen.std(0), floors))
    return np.stack(means), np.stack(deviations)


def background_distances(images: np.ndarray) -> np.ndarray:
    """Distance of each image's worst region to each background: float [n, 10], in standard deviations."""
    mean, deviation = _class_statistics()
    z = (background_statistics(images)[:, None] - mean) / deviation
    return np.sqrt((z**2).mean(-1)).max(-1)
