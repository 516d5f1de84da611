"""Background guard: how much an image resembles the place of the reference photos, without the subject."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .embedders import Embedder, OnEmbedder
from .errors import MetricsError
from .pictures import check_images, check_masks

SUBJECT = 32
"""Grey value from which a mask's pixel counts as subject; lower ones are soft edges or compression noise."""
WIDER = 0.03
"""How far the subject is grown before it is removed, as a share of the longer side.

This removes edges, soft shadows and outlines as well.
"""
LEAST_PLACE = 0.05
"""Share of a photo that must remain without the subject; a photo with less shows no background."""


def _box_sums(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums over the square of 2 * reach + 1 pixels around each pixel, cut at the edges.

    [H, W, c] -> float64 [H, W, c].
    """
    for axis in (0, 1):
        size = values.shape[axis]
        running = np.insert(np.cumsum(values, axis=axis, dtype=np.float64), 0, 0.0, axis=axis)
        high, low = np.minimum(np.arange(size) + reach + 1, size), np.maximum(np.arange(size) - reach, 0)
        values = running.take(high, axis=axis) - running.take(low, axis=axis)
    return values


def place_of(mask: np.ndarray) -> np.ndarray:
    """bool [H, W]: where a photo shows its background, from a mask uint8 [H, W] (255 = subject).

    The subject is grown by 3 % of the longer side, at least 1 pixel.
    """
    reach = max(1, round(WIDER * max(mask.shape)))
    return _box_sums((mask >= SUBJECT)[..., None], reach)[..., 0] < 0.5


def shows_place(masks: np.ndarray) -> np.ndarray:
    """bool [r]: which photos show enough background, from masks uint8 [r, H, W].

    False where the grown subject fills all but 5 %.
    """
    return np.asarray([place_of(mask).mean() >= LEAST_PLACE for mask in masks], bool)


def without_subject(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo with the subject removed and the hole filled from its surroundings, uint8 [H, W, 3].

    The hole is filled from its rim inwards: each pixel takes the mean of the known pixels in a square around it, 1
    pixel to each side at first, then 2, 4, ... when nothing nearer is left. Colour and brightness continue into the
    hole, texture fades. Pixels outside it are unchanged. photo uint8 [H, W, 3], mask uint8 [H, W] (255 = subject).
    Raises MetricsError where the grown subject leaves no pixel to fill from.
    """
    known = place_of(mask)
    if not known.any():
        raise MetricsError(
            "the subject fills the whole photo, so there is no background to fill from: leave this photo out."
        )
    filled, left, reach = np.where(known[..., None], photo, 0).astype(np.float64), ~known, 1
    while left.any():
        counts = _box_sums((~left)[..., None], reach)
        sums = _box_sums(np.where(left[..., None], 0.0, filled), reach)
        near = left & (counts[..., 0] > 0.5)
        filled[near] = sums[near] / counts[near]
        left &= ~near
        reach = min(2 * reach, max(mask.shape))
    return np.rint(filled).clip(0, 255).astype(np.uint8)


class BackgroundScorer(OnEmbedder):
    """Mean cosine (-1..1) between an image and the reference photos without their subject; a Scorer.

    It measures how much an image resembles the place of the photos, whatever subject it shows. Nothing trains on it: it
    rises when a model draws the photos' background although prompts ask for another one. Prompts that ask for such a
    background raise it rightly, so compare before and after over the same prompts, and look at alignment as well.

    references uint8 [r, H, W, 3], masks uint8 [r, H, W] (255 = subject); photos that the subject fills are left out,
    see `shows_place`. The photos are filled and embedded once, at the first score. Raises MetricsError for another
    shape or type, a mask without a subject, or if no photo shows any background.
    """

    def __init__(
        self, embedder: Embedder, references: np.ndarray, masks: np.ndarray, name: str = "judge_background"
    ) -> None:
        check_masks(masks, check_images(references, "references"))
        shown = shows_place(masks)
        if not shown.any():
            raise MetricsError(
                f"the subject fills all but {LEAST_PLACE:.0%} of each of the {len(masks)} photos, so they show no "
                "background: add photos from further away, or leave this guard out."
            )
        digest = hashlib.sha256(
            f"background-1|{embedder.fingerprint}|{SUBJECT} {WIDER} {LEAST_PLACE}|{references.shape}|".encode()
        )
        digest.update(references.tobytes() + masks.tobytes())
        self.name = name
        self.fingerprint = digest.hexdigest()
        self._embedder, self._photos = embedder, (references[shown], masks[shown])
        self._mean: np.ndarray | None = None

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, for uint8 images [n, H, W, 3]; higher = more like the photos' background.

        Prompts are ignored.
        """
        if len(check_images(images)) == 0:
            return np.zeros(0)
        if self._mean is None:
            places = np.stack([without_subject(*pair) for pair in zip(*self._photos, strict=True)])
            self._mean = self._embedder.embed_images(places).astype(np.float64).mean(axis=0)
        return self._embedder.embed_images(images).astype(np.float64) @ self._mean
