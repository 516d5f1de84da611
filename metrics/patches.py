"""Fidelity by patches: the parts of the subject are looked for anywhere in a picture, without masks.

The nearest paper is PatchDPO (arXiv 2412.03177), which compares patches of the reference with those of a picture by
features of a vision transformer. What belongs to the subject is told by recurrence: a patch of one photo that is also
in the other photos is the subject's, where the photos differ in all else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.nn import functional as F

from .augmented import AugmentedEmbedder, views
from .embedders import OnEmbedder, innermost, rest
from .errors import MetricsError
from .pictures import Preprocess, check_images, check_masks
from .scorers import FidelityScorer, check_references

COMPARED = ("picture", "patches")
"""What fidelity compares: the whole picture (its subject alone, where photos have masks), or patches."""

SHARPNESS = 0.05
"""Difference in recurrence (cosine) by which a patch's weight grows e-fold."""
BLOCK = 16
"""Pictures whose patches are in memory at a time."""


def best_matches(patches: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each patch [p, d] its highest cosine with the others [q, d], float64 [p], -1..1; all rows have norm 1."""
    return (patches @ others.T).max(axis=1).astype(np.float64)


def recurrence(photos: np.ndarray) -> np.ndarray:
    """How each patch of r photos recurs: the mean over the other photos of its best match, float64 [r, p], -1..1.

    photos: [r, p, d], rows of norm 1, r >= 2.
    """
    count = len(photos)
    found = np.zeros(photos.shape[:2])
    for i in range(count):
        for j in range(count):
            if i != j:
                found[i] += best_matches(photos[i], photos[j]) / (count - 1)
    return found


def recurrence_weights(photos: np.ndarray, sharpness: float = SHARPNESS) -> np.ndarray:
    """Weights of the patches of r photos by their recurrence c: exp(c / sharpness), float64 [r, p], rows of sum 1.

    photos: [r, p, d], rows of norm 1. Uniform for one photo, and where all patches recur alike.
    """
    if len(photos) == 1:
        return np.full(photos.shape[:2], 1 / photos.shape[1])
    recurs = recurrence(photos)
    grown = np.exp((recurs - recurs.max(axis=1, keepdims=True)) / sharpness)
    return grown / grown.sum(axis=1, keepdims=True)


def patch_scores(pictures: np.ndarray, photos: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fidelity of n pictures [n, q, d] to r photos [r, p, d], float64 [n], -1..1; rows have norm 1.

    Mean over photos of the weighted mean over a photo's patches of the best match in the picture. weights: [r, p], rows
    of sum 1. By hand: photos (1, 0) and (0, 1) with weights 0.75 and 0.25, a picture with (1, 0) alone: 0.75.
    """
    rows = photos.reshape(-1, photos.shape[-1])
    share = weights.reshape(-1) / len(photos)
    return np.asarray([best_matches(rows, picture) @ share for picture in pictures], np.float64)


def mask_weights(masks: np.ndarray, preprocess: Preprocess, grid: tuple[int, int]) -> np.ndarray:
    """Weights of patches by the share of each that the subject covers, float64 [r, rows * columns], rows of sum 1.

    masks: uint8 [r, H, W], 255 = subject; resized and cropped as the photos are. grid: rows, columns. Raises
    MetricsError where the crop leaves nothing of a subject.
    """
    seen = preprocess(masks[..., None].repeat(3, axis=-1))[:, :1] * preprocess.std[0] + preprocess.mean[0]
    shares = F.adaptive_avg_pool2d(seen.double().clamp(0, 1), grid).flatten(1).numpy()
    sums = shares.sum(axis=1, keepdims=True)
    if (sums <= 1e-6).any():
        number = int(np.argmin(sums)) + 1
        raise MetricsError(
            f"of photo {number} the scorer sees the middle square alone, and its subject lies outside: crop the photo "
            "and its mask around the subject."
        )
    return shares / sums


class PatchFidelityScorer(OnEmbedder):
    """Fidelity by patches (-1..1), see `patch_scores`; a Scorer.

    references: uint8 [r, H, W, 3]. Their patches count by how they recur over the photos; with `masks` (uint8
    [r, H, W], 255 = subject) by how much of each the subject covers. The references are embedded once, at the first
    score. With an AugmentedEmbedder a score is the mean over the picture's views. Raises MetricsError for an embedder
    without patches, for no photos, another shape or type, or a mask without a subject.
    """

    def __init__(
        self, embedder: Any, references: np.ndarray, name: str = "fidelity", masks: np.ndarray | None = None
    ) -> None:
        check_references(references)
        self._grid = check_patches(embedder)
        digest = hashlib.sha256(f"patch-fidelity-1|{embedder.fingerprint}|{SHARPNESS}|{references.shape}|".encode())
        digest.update(references.tobytes())
        if masks is not None:
            digest.update(b"|masks|" + check_masks(masks, references).tobytes())
        self.name, self.fingerprint = name, digest.hexdigest()
        self._embedder, self._references, self._masks = embedder, references, masks
        self._known: tuple[np.ndarray, np.ndarray] | None = None

    def _photos(self) -> tuple[np.ndarray, np.ndarray]:
        """Patches of the references [r, p, d] and their weights [r, p]."""
        if self._known is None:
            patches = patches_of(self._embedder, self._references)
            if self._masks is None:
                weights = recurrence_weights(patches)
            else:
                weights = mask_weights(self._masks, innermost(self._embedder).preprocess, self._grid)
            self._known = (patches, weights)
        return self._known

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, for uint8 images [n, H, W, 3]; higher = more like the subject. Prompts are ignored."""
        check_images(images)
        looks = views(images) if isinstance(self._embedder, AugmentedEmbedder) else [images]
        return np.mean([self._of(look) for look in looks], axis=0)

    def _of(self, images: np.ndarray) -> np.ndarray:
        blocks = (images[i : i + BLOCK] for i in range(0, len(images), BLOCK))
        found = [patch_scores(patches_of(self._embedder, block), *self._photos()) for block in blocks]
        return np.concatenate([np.zeros(0), *found])


def patches_of(embedder: Any, images: np.ndarray) -> np.ndarray:
    """Patches of images uint8 [n, H, W, 3], float32 [n, p, d], rows of norm 1."""
    found = embedder.embed_patches(images)
    return found.reshape(len(found), -1, found.shape[-1])


def check_patches(embedder: Any) -> tuple[int, int]:
    """Rows and columns of an embedder's patches. Raises MetricsError where it has none."""
    if not callable(getattr(embedder, "embed_patches", None)):
        raise MetricsError(f"{embedder.name} has no patches: choose a vision transformer, or compare whole pictures.")
    return embedder.embed_patches(np.zeros((0, 8, 8, 3), np.uint8)).shape[1:3]


class ByPatches:
    """Marks an embedder: its fidelity is scored by patches (`fidelity_scorer`). All else is the wrapped one's.

    Raises MetricsError where the embedder has no patches.
    """

    def __init__(self, embedder: Any) -> None:
        check_patches(embedder)
        self.name, self.fingerprint, self._embedder = embedder.name, embedder.fingerprint, embedder
        self.embed_images, self.embed_texts = embedder.embed_images, embedder.embed_texts

    def rest(self) -> None:
        """Move the embedder's model off the GPU until its next use."""
        rest(self._embedder)


def fidelity_scorer(
    embedder: Any, references: np.ndarray, name: str, masks: np.ndarray | None
) -> FidelityScorer | PatchFidelityScorer:
    """The fidelity scorer of an embedder: by patches where it is marked so (`ByPatches`)."""
    if isinstance(embedder, ByPatches):
        return PatchFidelityScorer(embedder._embedder, references, name, masks)
    return FidelityScorer(embedder, references, name, masks)
