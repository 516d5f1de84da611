"""An embedder that averages over a few slightly changed views of each image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .embedders import Embedder, rest
from .errors import MetricsError
from .pictures import check_images

SHIFT = 0.03
"""Shift of the moved views, as a share of the image's height and width; at least one pixel."""
VIEWS = ("itself", "flipped left to right", "shifted down and right", "shifted up and left")


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images uint8 [n, H, W, 3] moved by whole pixels (negative: up, left); pixels at the edge are repeated."""
    rows = np.clip(np.arange(images.shape[1]) - down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) - right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


def views(images: np.ndarray) -> list[np.ndarray]:
    """The views of images uint8 [n, H, W, 3], in the order of VIEWS, each of the same shape."""
    down, right = (max(1, round(SHIFT * size)) for size in images.shape[1:3])
    return [
        images,
        np.ascontiguousarray(images[:, :, ::-1]),
        shifted(images, down, right),
        shifted(images, -down, -right),
    ]


class AugmentedEmbedder:
    """Wraps an Embedder: an image's embedding is the normalised mean of the unit embeddings of its `views`.

    Texts are passed through. A reward averaged over small changes of the image is harder to hack: the mean removes what
    only one exact arrangement of pixels earns. Measured by tests/metrics/test_augmented.py: images tuned pixel by pixel
    against the toybox's reward gain less under the wrapped one. It costs one forward per view. The last result is
    cached, as the embedders do.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.name = f"{embedder.name}, mean of {len(VIEWS)} views"
        self.fingerprint = hashlib.sha256(f"augmented-1|{embedder.fingerprint}|{VIEWS}|{SHIFT}".encode()).hexdigest()
        self._embedder = embedder
        self._last: tuple[bytes, np.ndarray] | None = None

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, d] of norm 1 for uint8 images [n, H, W, 3].

        Raises MetricsError for another shape or type, or when the mean of an image's views is zero.
        """
        check_images(images)
        key = hashlib.sha256(str(images.shape).encode() + images.tobytes()).digest()
        if self._last is None or self._last[0] != key:
            # One view at a time, because all views of large images may not fit in memory.
            mean = np.mean([self._embedder.embed_images(view).astype(np.float64) for view in views(images)], axis=0)
            norms = np.linalg.norm(mean, axis=1, keepdims=True)
            if not (norms > 0).all():
                raise MetricsError(
                    f"{self._embedder.name}: the embeddings of a picture's views cancel out. Turn augment off."
                )
            self._last = (key, (mean / norms).astype(np.float32))
        return self._last[1].copy()

    def embed_patches(self, images: np.ndarray) -> np.ndarray:
        """The wrapped embedder's patches of the images as they are: float32 [n, rows, columns, d] of norm 1.

        The patches of the views have other places, so `PatchFidelityScorer` averages scores instead.
        """
        return self._embedder.embed_patches(images)

    def rest(self) -> None:
        """Move the wrapped embedder's model off the GPU until its next use."""
        rest(self._embedder)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        """The wrapped embedder's texts: float32 [n, d] of norm 1, or None without a text tower."""
        return self._embedder.embed_texts(texts)
