"""Guards: measures of copying, diversity and colour, which nothing trains on, to tell a gain from reward hacking."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from .embedders import Embedder, OnEmbedder
from .errors import MetricsError
from .pictures import check_images

SMALLEST_ANGLE = 1e-6
"""Smallest denominator of M, so that coinciding reference and held-out photos give 0, not 0/0. Unit: radians."""


def _unit(embeddings: np.ndarray, what: str, at_least: int) -> np.ndarray:
    """The rows in float64 at norm 1 (float32 rows are off by 1e-7, which affects small angles).

    Raises MetricsError for too few rows, or for a NaN, infinite or zero row.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < at_least:
        raise MetricsError(
            f"{what} has shape {list(rows.shape)}: an array [rows, d] with at least {at_least} rows is needed."
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise MetricsError(
            f"{what} holds a NaN, infinite or zero embedding, which has no direction: check its pictures."
        )
    return rows / norms


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles [n, m], radians 0..pi, of unit rows a [n, d] and b [m, d].

    Exact near 0 and pi, where arccos of the cosine is not.
    """
    columns = [2 * np.arctan2(np.linalg.norm(a - row, axis=1), np.linalg.norm(a + row, axis=1)) for row in b]
    return np.stack(columns, axis=1)


def copy_paste(generated: np.ndarray, held_out: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Copy-paste measure M of each generated image, float64 [n] in [-1, 1] (WithAnyone, arXiv 2510.14975).

        M = (theta_gt - theta_gr) / max(theta_tr, eps)

    with angles between embeddings of the generated image g, a real photo t of the subject that training never saw, and
    a training reference r. +1: g is the training photo; -1: g is the held-out photo; 0: equally near to both. A model
    that has learned the subject stays near 0; one that copies its references rises.

    The paper has one t and one r. Here each image is measured against *its nearest* r (the likeliest source of a copy)
    and *its nearest* t: the same rule on both sides, so that with equally many similar photos of either kind the mean
    of M is 0. (A mean embedding on one side would break this, because a centroid is nearer to everything.) With more
    references than held-out photos M leans slightly to copying; then compare M before and after training rather than
    with 0. theta_tr is the angle between the two nearest photos, so the triangle inequality bounds M, and clipping only
    removes rounding.

    generated [n, d], held_out [h, d], references [r, d]: embeddings of any length above 0; n may be 0, h and r may not.
    Raises MetricsError for other shapes, different d, or embeddings without a direction.
    """
    g, t, r = _unit(generated, "generated", 0), _unit(held_out, "held_out", 1), _unit(references, "references", 1)
    if not g.shape[1] == t.shape[1] == r.shape[1]:
        raise MetricsError(
            f"embeddings have lengths {g.shape[1]}, {t.shape[1]}, {r.shape[1]}: use one embedder for all three."
        )
    to_t, to_r, between = _angles(g, t), _angles(g, r), _angles(t, r)
    nearest_t, nearest_r = to_t.argmin(axis=1), to_r.argmin(axis=1)
    gap = to_t.min(axis=1) - to_r.min(axis=1)
    return np.clip(gap / np.maximum(between[nearest_t, nearest_r], SMALLEST_ANGLE), -1.0, 1.0)


def vendi_score(embeddings: np.ndarray) -> float:
    """Effective number of different images: 1 (all the same) to n (all orthogonal). Friedman & Dieng, arXiv 2210.02410.

    exp(-sum_i l_i log l_i), l_i the eigenvalues of K/n, K_ij = cosine of embeddings i and j (definition 3.1).
    embeddings [n, d], n >= 1. Raises MetricsError for no embeddings or ones without a direction.
    """
    rows = _unit(embeddings, "embeddings", 1)
    # The eigenvalues of X X^T / n are the squared singular values of X / sqrt(n), which needs no n x n matrix and
    # gives none below 0.
    shares = np.linalg.svd(rows / np.sqrt(len(rows)), compute_uv=False) ** 2
    shares = shares[shares > 0]
    return float(np.clip(np.exp(-np.sum(shares * np.log(shares))), 1.0, len(rows)))


def vendi_by_prompt(embeddings: np.ndarray, prompts: Sequence[str]) -> dict[str, float]:
    """Vendi score of the images of each prompt, in order of first appearance; {} for no images.

    embeddings [n, d], n prompts. A score is at most the prompt's number of images, so compare prompts, or before and
    after, only at equal numbers. Raises MetricsError when the counts differ.
    """
    if len(embeddings) != len(prompts):
        raise MetricsError(f"{len(embeddings)} embeddings for {len(prompts)} prompts: give one prompt per picture.")
    rows = np.asarray(embeddings)
    chosen: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        chosen.setdefault(prompt, []).append(index)
    return {prompt: vendi_score(rows[indices]) for prompt, indices in chosen.items()}


class CopyPasteScorer(OnEmbedder):
    """`copy_paste` of images against held-out photos and training references of the subject; a Scorer.

    held_out [h, H', W', 3] and references [r, H, W, 3] are uint8. Raises MetricsError when either is empty or of
    another shape or type.
    """

    def __init__(
        self, embedder: Embedder, held_out: np.ndarray, references: np.ndarray, name: str = "copy_paste"
    ) -> None:
        digest = hashlib.sha256(f"copy_paste-1|{embedder.fingerprint}".encode())
        for what, photos in (("held_out", held_out), ("references", references)):
            if len(check_images(photos, what)) == 0:
                raise MetricsError(
                    f"no {what} photos: the copy-paste guard needs both reference photos and held-out photos."
                )
            digest.update(f"|{what} {photos.shape}|".encode() + photos.tobytes())
        self.name = name
        self.fingerprint = digest.hexdigest()
        self._embedder, self._photos = embedder, (held_out, references)
        self._embedded: tuple[np.ndarray, np.ndarray] | None = None

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] in [-1, 1]; higher = nearer to a training photo than to a held-out one. Ignores prompts."""
        if len(check_images(images)) == 0:
            return np.zeros(0)
        if self._embedded is None:
            held_out, references = self._photos
            self._embedded = (self._embedder.embed_images(held_out), self._embedder.embed_images(references))
        return copy_paste(self._embedder.embed_images(images), *self._embedded)


class DiversityScorer(OnEmbedder):
    """Gives each image the Vendi score of its prompt's images, 1 to their number; a Scorer.

    A call must contain all images of a prompt. Compare only equal numbers of images per prompt.
    """

    def __init__(self, embedder: Embedder, name: str = "diversity") -> None:
        self.name = name
        self.fingerprint = hashlib.sha256(f"diversity-1|{embedder.fingerprint}".encode()).hexdigest()
        self._embedder = embedder

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n] for uint8 images [n, H, W, 3] and their n prompts; MetricsError when the counts differ."""
        if len(check_images(images)) != len(prompts):
            raise MetricsError(f"{len(images)} images for {len(prompts)} prompts: give one prompt per image.")
        if len(images) == 0:
            return np.zeros(0)
        scores = vendi_by_prompt(self._embedder.embed_images(images), prompts)
        return np.array([scores[prompt] for prompt in prompts])


class SaturationScorer:
    """How saturated the colours of an image are; a Scorer without a model, so no scorer's fault can be in it.

    The mean over pixels of max(R, G, B) - min(R, G, B), the chroma of the HSV model, as a share of its range. A model
    that is trained on a scorer that pays for strong colours draws stronger ones. Prompts differ in it by what they ask
    for: compare before and after over the same prompts.
    """

    def __init__(self, name: str = "saturation") -> None:
        self.name = name
        self.fingerprint = hashlib.sha256(b"saturation-1").hexdigest()

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], 0 (grey) to 1 (pure colours), for uint8 images [n, H, W, 3]; prompts are ignored."""
        if len(check_images(images)) == 0:
            return np.zeros(0)
        return (images.max(axis=-1) - images.min(axis=-1)).mean(axis=(1, 2), dtype=np.float64) / 255
