"""The two axes: fidelity (does it look like the reference photos?) and alignment (does it follow the prompt?).

Reward and judge are the same classes on different embedders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from .embedders import Embedder
from .errors import MetricsError
from .pictures import check_images


class FidelityScorer:
    """Mean cosine (-1..1) between a picture and the concept's reference photos: CLIP-I and DINO of DreamBooth (arXiv 2208.12242).

    concept_references: uint8 [r, H, W, 3], r >= 1; embedded once, at the first score. Raises MetricsError for none or another form.
    """

    def __init__(self, embedder: Embedder, concept_references: np.ndarray, name: str = "fidelity") -> None:
        if len(check_images(concept_references, "concept_references")) == 0:
            raise MetricsError("there are no reference photos: fidelity needs at least one, three to five are usual.")
        digest = hashlib.sha256(f"fidelity-1|{embedder.fingerprint}|{concept_references.shape}|".encode())
        digest.update(concept_references.tobytes())
        self.name = name
        self.fingerprint = digest.hexdigest()
        self._embedder, self._references = embedder, concept_references
        self._mean: np.ndarray | None = None

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, of uint8 images [n, H, W, 3]. Prompts are not looked at."""
        if len(check_images(images)) == 0:
            return np.zeros(0)
        if self._mean is None:
            # The mean of cosines with unit vectors is the product with their mean (not renormalised).
            self._mean = self._embedder.embed_images(self._references).astype(np.float64).mean(axis=0)
        return self._embedder.embed_images(images).astype(np.float64) @ self._mean


class AlignmentScorer:
    """Cosine (-1..1) between a picture and its prompt's text (CLIP-T of DreamBooth, arXiv 2208.12242).

    `strip` turns the prompt as the model got it into the text to compare with: it takes the identifier out, which a text tower
    does not know, and keeps the class noun ("a photo of a sks robot" -> "a photo of a robot"). `identifier`, the word it takes
    out, only enters the fingerprint, a function having none. Texts are embedded once each.
    Raises MetricsError when the embedder has no text tower.
    """

    def __init__(self, embedder: Embedder, strip: Callable[[str], str], name: str = "alignment", identifier: str = "") -> None:
        if embedder.embed_texts([]) is None:
            raise MetricsError(
                f"{embedder.name} has no text tower, so it cannot score alignment: choose an open_clip model for that, "
                "and keep this one for fidelity."
            )
        self.name = name
        self.fingerprint = hashlib.sha256(f"alignment-1|{embedder.fingerprint}|{identifier}".encode()).hexdigest()
        self._embedder, self._strip = embedder, strip
        self._texts: dict[str, np.ndarray] = {}

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, of uint8 images [n, H, W, 3] and their n prompts. MetricsError when the counts differ."""
        if len(check_images(images)) != len(prompts):
            raise MetricsError(f"{len(images)} images for {len(prompts)} prompts: give one prompt an image.")
        if len(images) == 0:
            return np.zeros(0)
        texts = [self._strip(prompt) for prompt in prompts]
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._texts.update(zip(new, self._embedder.embed_texts(new).astype(np.float64), strict=True))
        rows = np.stack([self._texts[text] for text in texts])
        return np.einsum("nd,nd->n", self._embedder.embed_images(images).astype(np.float64), rows)
