"""Fidelity and alignment on tiny models with random weights, against open_clip and transformers used directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreambooth_dpo.metrics.embedders import DinoV2Embedder, OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.scorers import AlignmentScorer, FidelityScorer
from dreambooth_dpo.toybox.world import Scene, render

PROMPTS = ["a photo of a sks robot on grass", "a sks robot wearing a red hat in snow", "a photo of a sks robot on grass"]


def strip(prompt: str) -> str:
    return " ".join(word for word in prompt.split() if word != "sks")


def pictures(count: int, seed: int) -> np.ndarray:
    names = ("grass", "brick", "snow", "night")
    return np.stack([render(Scene("robot", "red", "cyan", names[i % 4]), seed + i) for i in range(count)])


def by_open_clip(folder, images: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of pictures and texts by open_clip's own model, tokenizer and PIL preprocessing."""
    import open_clip
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for image in images])
        return (
            model.eval().encode_image(batch, normalize=True).numpy().astype(np.float64),
            model.encode_text(tokens, normalize=True).numpy().astype(np.float64),
        )


def test_scores_are_open_clips_cosines(clip_folder):
    images, references = pictures(3, 0), pictures(5, 100)
    embedder = OpenClipEmbedder(clip_folder)
    theirs, texts = by_open_clip(clip_folder, np.concatenate([images, references]), [strip(p) for p in PROMPTS])
    fidelity = FidelityScorer(embedder, references).score(images, PROMPTS)
    alignment = AlignmentScorer(embedder, strip).score(images, PROMPTS)
    assert fidelity.dtype == alignment.dtype == np.float64
    np.testing.assert_allclose(fidelity, (theirs[:3] @ theirs[3:].T).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(alignment, (theirs[:3] * texts).sum(axis=1), atol=1e-6)


def test_resized_pictures_score_as_with_pil(clip_folder):
    """128x160 pictures: PIL rounds to uint8 between resize and model, so the cosine of the embeddings is 1 to a few 1e-4."""
    tall = np.repeat(np.repeat(pictures(2, 7), 2, axis=1), 2, axis=2)
    wide = np.concatenate([tall[:, :, :16], tall, tall[:, :, -16:]], axis=2)
    theirs, _ = by_open_clip(clip_folder, wide, ["a robot"])
    ours = OpenClipEmbedder(clip_folder).embed_images(wide)
    np.testing.assert_allclose((ours * theirs).sum(axis=1), 1, atol=5e-4)


def test_batch_size_does_not_change_scores(clip_folder, monkeypatch):
    from dreambooth_dpo.metrics import embedders

    images, prompts = pictures(7, 3), [PROMPTS[0]] * 7
    scores = []
    for batch in (64, 3, 1):
        monkeypatch.setattr(embedders, "BATCH", batch)
        embedder = OpenClipEmbedder(clip_folder)
        scores.append(
            (FidelityScorer(embedder, images[:2]).score(images, prompts), AlignmentScorer(embedder, strip).score(images, prompts))
        )
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-6)


def test_identifier_is_stripped_and_class_noun_kept(reward_folder):
    """ "sks robot" scores as "robot" does; another noun, or the identifier left in, does not."""
    images, embedder = pictures(1, 0), OpenClipEmbedder(reward_folder)
    scorer = AlignmentScorer(embedder, strip)
    plain = AlignmentScorer(embedder, lambda prompt: prompt)
    assert scorer.score(images, ["a sks robot"]) == plain.score(images, ["a robot"])
    assert scorer.score(images, ["a sks robot"]) != plain.score(images, ["a sks robot"])
    assert scorer.score(images, ["a sks robot"]) != scorer.score(images, ["a sks bear"])


class Counting:
    """Counts what reaches the embedder inside."""

    def __init__(self, inner):
        self.inner, self.name, self.fingerprint = inner, inner.name, inner.fingerprint
        self.texts, self.batches = [], 0

    def embed_images(self, images):
        self.batches += 1
        return self.inner.embed_images(images)

    def embed_texts(self, texts):
        self.texts += texts
        return self.inner.embed_texts(texts)


def test_texts_and_references_are_embedded_once(reward_folder):
    embedder, images = Counting(OpenClipEmbedder(reward_folder)), pictures(3, 0)
    alignment = AlignmentScorer(embedder, strip)
    first = alignment.score(images, PROMPTS)
    np.testing.assert_array_equal(alignment.score(images[::-1], PROMPTS[::-1])[::-1], first)
    assert embedder.texts == [strip(PROMPTS[0]), strip(PROMPTS[1])]
    fidelity, embedder.batches = FidelityScorer(embedder, images), 0
    fidelity.score(images, PROMPTS)
    fidelity.score(images, PROMPTS)
    assert embedder.batches == 3  # the references once, the pictures twice


def test_empty_input_gives_empty_scores(reward_folder):
    embedder, none = OpenClipEmbedder(reward_folder), np.zeros((0, 64, 64, 3), np.uint8)
    for scorer in (FidelityScorer(embedder, pictures(1, 0)), AlignmentScorer(embedder, strip)):
        scores = scorer.score(none, [])
        assert scores.shape == (0,)
        assert scores.dtype == np.float64
    assert embedder.embed_images(none).shape == embedder.embed_texts([]).shape == (0, 128)


def test_fingerprint_holds_all_that_a_score_depends_on(reward_folder):
    embedder, references = OpenClipEmbedder(reward_folder), pictures(2, 0)
    changed = references.copy()
    changed[1, 5, 5, 0] ^= 1
    fidelity = FidelityScorer(embedder, references).fingerprint
    assert fidelity == FidelityScorer(OpenClipEmbedder(reward_folder), references.copy(), name="other").fingerprint
    assert fidelity != FidelityScorer(embedder, changed).fingerprint
    assert fidelity != FidelityScorer(embedder, references[:1]).fingerprint
    alignment = AlignmentScorer(embedder, strip).fingerprint
    assert alignment not in (fidelity, AlignmentScorer(embedder, strip, identifier="sks").fingerprint)


def test_wrong_input_is_refused_by_name(reward_folder):
    embedder, images = OpenClipEmbedder(reward_folder), pictures(2, 0)
    with pytest.raises(MetricsError, match="no reference photos"):
        FidelityScorer(embedder, images[:0])
    with pytest.raises(MetricsError, match="concept_references is float32"):
        FidelityScorer(embedder, images.astype(np.float32))
    with pytest.raises(MetricsError, match=r"images is uint8 \[64, 64, 3\]"):
        FidelityScorer(embedder, images).score(images[0], PROMPTS)
    with pytest.raises(MetricsError, match="2 images for 3 prompts"):
        AlignmentScorer(embedder, strip).score(images, PROMPTS)


def test_dino_scores_fidelity_and_refuses_alignment(dino_folder):
    embedder, references = DinoV2Embedder(dino_folder), pictures(3, 0)
    scores = FidelityScorer(embedder, references[:1]).score(references, PROMPTS)
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert (scores[1:] < 1).all()
    with pytest.raises(MetricsError, match="has no text tower"):
        AlignmentScorer(embedder, strip)
