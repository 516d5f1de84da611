"""Scorers of the two axes: fidelity (likeness to the reference photos) and alignment (agreement with the prompt).

Reward and judge are the same classes on different embedders.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .embedders import Embedder, OnEmbedder
from .errors import MetricsError
from .pictures import check_images, check_masks

LEVELS = (32, 128, 224)
"""Channel values of the plain backgrounds for a cut-out subject: 27 colours with a grey mean."""


def on_plain_backgrounds(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A photo's subject, cut out by its mask, on each of 27 plain colours.

    photo uint8 [H, W, 3], mask uint8 [H, W] (255 = subject); returns uint8 [27, H, W, 3].
    """
    share = mask[..., None].astype(np.float32) / 255
    subject = share * photo
    colours = itertools.product(LEVELS, repeat=3)
    return np.stack([np.rint(subject + (1 - share) * np.asarray(c, np.float32)).astype(np.uint8) for c in colours])


def check_references(photos: np.ndarray) -> None:
    """Raises MetricsError unless photos are uint8 [r, H, W, 3] with r >= 1."""
    if len(check_images(photos, "concept_references")) == 0:
        raise MetricsError("there are no reference photos: fidelity needs at least one, three to five are usual.")


class FidelityScorer(OnEmbedder):
    """Mean cosine (-1..1) between an image and the concept's reference photos.

    These are CLIP-I and DINO of DreamBooth (arXiv 2208.12242). concept_references: uint8 [r, H, W, 3], r >= 1; embedded
    once, at the first score. With `masks` (uint8 [r, H, W], 255 = subject) each photo is replaced by its subject on 27
    plain colours, so that likeness of the subject is rewarded and likeness of the background is not. Raises
    MetricsError for no photos, another shape or type, or a mask without a subject.
    """

    def __init__(
        self,
        embedder: Embedder,
        concept_references: np.ndarray,
        name: str = "fidelity",
        masks: np.ndarray | None = None,
    ) -> None:
        check_references(concept_references)
        digest = hashlib.sha256(f"fidelity-1|{embedder.fingerprint}|{concept_references.shape}|".encode())
        digest.update(concept_references.tobytes())
        if masks is not None:
            check_masks(masks, concept_references)
            digest.update(f"|plain backgrounds {LEVELS}|".encode() + masks.tobytes())
        self.name = name
        self.fingerprint = digest.hexdigest()
        self._embedder, self._references, self._masks = embedder, concept_references, masks
        self._mean: np.ndarray | None = None

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], -1..1, for uint8 images [n, H, W, 3]. Ignores prompts."""
        if len(check_images(images)) == 0:
            return np.zeros(0)
        if self._mean is None:
            # The mean cosine with unit vectors is the product with their mean (not renormalised).
            self._mean = np.concatenate(
                [self._embedder.embed_images(p).astype(np.float64) for p in self._photos()]
            ).mean(axis=0)
        return self._embedder.embed_images(images).astype(np.float64) @ self._mean

    def _photos(self) -> Iterator[np.ndarray]:
        """Reference images in batches: with masks one batch of 27 per photo, because all would need too much memory."""
        if self._masks is None:
            yield self._references
        else:
            yield from map(on_plain_backgrounds, self._references, self._masks)


class AlignmentScorer(OnEmbedder):
    """Cosine (-1..1) between an image and its prompt's text (CLIP-T of DreamBooth, arXiv 2208.12242).

    `strip` turns the model's prompt into the text to compare with: it removes the identifier, which a text tower does
    not know, and keeps the class noun ("a photo of a sks robot" -> "a photo of a robot"). `identifier`, the word
    removed, only enters the fingerprint, because a function has none. Each text is embedded once. Raises MetricsError
    when the embedder has no text tower.
    """

    def __init__(
        self, embedder: Embedder, strip: Callable[[str], str], name: str = "alignment", identifier: str = ""
    ) -> None:
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
        """float64 [n], -1..1, for uint8 images [n, H, W, 3] and their n prompts; MetricsError if the counts differ."""
        if len(check_images(images)) != len(prompts):
            raise MetricsError(f"{len(images)} images for {len(prompts)} prompts: give one prompt per image.")
        if len(images) == 0:
            return np.zeros(0)
        texts = [self._strip(prompt) for prompt in prompts]
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            self._texts.update(zip(new, self._embedder.embed_texts(new).astype(np.float64), strict=True))
        rows = np.stack([self._texts[text] for text in texts])
        return np.einsum("nd,nd->n", self._embedder.embed_images(images).astype(np.float64), rows)


class QualityScorer(AlignmentScorer):
    """PickScore (arXiv 2305.01569): exp(logit_scale) * cosine of an image and its prompt's text; a Scorer.

    The unit is a logit: of two images of one prompt, the model expects people to prefer the first with probability
    sigmoid(its score - the other's). PickScore's are about 15 to 25. `strip` and `identifier`: as for AlignmentScorer,
    since the model does not know the identifier. Raises MetricsError for an embedder that is no CLIP of transformers.
    """

    def __init__(
        self, embedder: Embedder, strip: Callable[[str], str], name: str = "quality", identifier: str = ""
    ) -> None:
        scale = getattr(embedder, "scale", None)
        if scale is None or getattr(embedder, "bias", 0.0) != 0:
            raise MetricsError(
                f"{embedder.name} cannot score quality: this needs a CLIP that was trained on people's preferences, as "
                "PickScore_v1 in transformers' form (config.json with model_type clip)."
            )
        super().__init__(embedder, strip, name, identifier)
        self.fingerprint = hashlib.sha256(f"quality-1|{embedder.fingerprint}|{identifier}".encode()).hexdigest()
        self._scale = scale

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """float64 [n], logits, for uint8 images [n, H, W, 3] and their n prompts; MetricsError if counts differ."""
        return self._scale * super().score(images, prompts)
