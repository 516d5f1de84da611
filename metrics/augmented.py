"""An embedder that looks at each picture several times: the mean of a few slightly changed views in place of one look."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .embedders import Embedder, rest
from .errors import MetricsError
from .pictures import check_images

SHIFT = 0.03
"""How far the shifted views move, as a share of the picture's height and width; one pixel at least."""
VIEWS = ("itself", "flipped left to right", "shifted down and right", "shifted up and left")


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Pictures uint8 [n, H, W, 3] moved by whole pixels (negative: up, left); what comes in at the edges repeats the
    edge.
    """
    rows = np.clip(np.arange(images.shape[1]) - down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) - right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


def views(images: np.ndarray) -> list[np.ndarray]:
    """The views of pictures uint8 [n, H, W, 3], each of the same form, in the order of VIEWS."""
    down, right = (max(1, round(SHIFT * size)) for size in images.shape[1:3])
    return [
        images,
        np.ascontiguousarray(images[:, :, ::-1]),
        shifted(images, down, right),
        shifted(images, -down, -right),
    ]


class AugmentedEmbedder:
    """Wraps an Embedder: a picture's embedding is the normalised mean of the unit embeddings of its `views`. Texts pass
    through.

    A reward that is averaged over small changes of the picture is harder to hack: what only one exact placement of
    pixels earns, the mean takes away. Measured by tests/metrics/test_augmented.py: pictures tuned pixel by pixel
    against the toybox's reward gain less where the wrapped one scores. It costs a forward for each view. The last
    pictures' embeddings are kept, as the embedders keep theirs.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.name = f"{embedder.name}, mean of {len(VIEWS)} views"
        self.fingerprint = hashlib.sha256(f"augmented-1|{embedder.fingerprint}|{VIEWS}|{SHIFT}".encode()).hexdigest()
        self._embedder = embedder
        self._last: tuple[bytes, np.ndarray] | None = None

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, d] of norm 1, of uint8 images [n, H, W, 3]; MetricsError for another form, or views whose mean
        has no direction.
        """
        check_images(images)
        key = hashlib.sha256(str(images.shape).encode() + images.tobytes()).digest()
        if self._last is None or self._last[0] != key:
            # One view at a time: of large pictures, all at once would not fit.
            mean = np.mean([self._embedder.embed_images(view).astype(np.float64) for view in views(images)], axis=0)
            norms = np.linalg.norm(mean, axis=1, keepdims=True)
            if not (norms > 0).all():
                raise MetricsError(
                    f"{self._embedder.name}: the views of a picture cancel each other out. Turn augment off for it."
                )
            self._last = (key, (mean / norms).astype(np.float32))
        return self._last[1].copy()

    def rest(self) -> None:
        """The wrapped embedder's model leaves the GPU until it is asked again."""
        rest(self._embedder)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray | None:
        """What the wrapped embedder gives: float32 [n, d] of norm 1, or None where there is no text tower."""
        return self._embedder.embed_texts(texts)
