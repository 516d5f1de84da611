"""Tests fidelity and alignment on tiny models with random weights, against direct use of open_clip and transformers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from dreambooth_dpo.metrics.embedders import DinoV2Embedder, OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.scorers import AlignmentScorer, FidelityScorer, on_plain_backgrounds
from dreambooth_dpo.toybox.world import Scene, render, subject_mask

PROMPTS = [
    "a photo of a sks robot on grass",
    "a sks robot wearing a red hat in snow",
    "a photo of a sks robot on grass",
]


def strip(prompt: str) -> str:
    return " ".join(word for word in prompt.split() if word != "sks")


def pictures(count: int, seed: int) -> np.ndarray:
    names = ("grass", "brick", "snow", "night")
    return np.stack([render(Scene("robot", "red", "cyan", names[i % 4]), seed + i) for i in range(count)])


def by_open_clip(folder, images: np.ndarray, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings of images and texts by open_clip's own model, tokenizer and PIL preprocessing."""
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


def test_scores_equal_open_clips_cosines(clip_folder):
    images, references = pictures(3, 0), pictures(5, 100)
    embedder = OpenClipEmbedder(clip_folder)
    theirs, texts = by_open_clip(clip_folder, np.concatenate([images, references]), [strip(p) for p in PROMPTS])
    fidelity = FidelityScorer(embedder, references).score(images, PROMPTS)
    alignment = AlignmentScorer(embedder, strip).score(images, PROMPTS)
    assert fidelity.dtype == alignment.dtype == np.float64
    np.testing.assert_allclose(fidelity, (theirs[:3] @ theirs[3:].T).mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(alignment, (theirs[:3] * texts).sum(axis=1), atol=1e-6)


def test_resized_images_score_as_with_pil(clip_folder):
    """128x160 images: PIL rounds to uint8 before the model, so embeddings agree to a cosine of 1 within a few 1e-4."""
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
            (
                FidelityScorer(embedder, images[:2]).score(images, prompts),
                AlignmentScorer(embedder, strip).score(images, prompts),
            )
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
    """Counts the images and texts that reach the wrapped embedder."""

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


def test_fingerprint_covers_everything_a_score_depends_on(reward_folder):
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


# --- the subject alone ---


def photos_and_masks(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The images that `pictures` draws, and masks of the robot in them."""
    masks = [subject_mask(Scene("robot", "red", "cyan", "grass"), seed + i) for i in range(count)]
    return pictures(count, seed), np.stack(masks)


def test_masked_score_is_the_mean_cosine_with_the_subject_on_27_plain_colours(reward_folder):
    images, (photos, masks) = pictures(3, 50), photos_and_masks(2)
    cut_out = []
    for photo, mask in zip(photos, masks, strict=True):
        for colour in itertools.product((32, 128, 224), repeat=3):
            plain = np.full_like(photo, colour)
            plain[mask == 255] = photo[mask == 255]
            cut_out.append(plain)
    theirs, _ = by_open_clip(reward_folder, np.concatenate([images, cut_out]), ["a robot"])
    embedder = OpenClipEmbedder(reward_folder)
    scores = FidelityScorer(embedder, photos, masks=masks).score(images, PROMPTS)
    assert scores.dtype == np.float64 and len(cut_out) == 54
    np.testing.assert_allclose(scores, (theirs[:3] @ theirs[3:].T).mean(axis=1), atol=1e-6)
    assert np.abs(scores - FidelityScorer(embedder, photos).score(images, PROMPTS)).min() > 1e-4


def test_soft_edges_are_blended_with_each_colour():
    """Mask 0, 51, 255 is a share of 0, 0.2, 1; the colours' mean is grey.

    On (32, 128, 224) a photo's (100, 0, 200) becomes that colour, (45.6, 102.4, 219.2), and itself.
    """
    photo = np.tile(np.uint8([100, 0, 200]), (1, 3, 1))
    made = on_plain_backgrounds(photo, np.uint8([[0, 51, 255]]))
    assert made.shape == (27, 1, 3, 3) and made.dtype == np.uint8
    assert len({m.tobytes() for m in made}) == 27
    assert made[:, 0, 0].mean(axis=0).tolist() == [128, 128, 128]
    assert [[32, 128, 224], [46, 102, 219], [100, 0, 200]] in made[:, 0].tolist()


def test_background_of_the_photos_does_not_count_with_masks(reward_folder):
    """Replacing every pixel outside the mask leaves the scores equal to the last bit; without masks they change."""
    images, (photos, masks) = pictures(3, 50), photos_and_masks(2)
    noise = np.random.default_rng(0).integers(0, 256, photos.shape, dtype=np.uint8)
    elsewhere = np.where(masks[..., None] == 255, photos, noise)
    embedder = OpenClipEmbedder(reward_folder)
    here, there = (FidelityScorer(embedder, p, masks=masks).score(images, PROMPTS) for p in (photos, elsewhere))
    np.testing.assert_array_equal(here, there)
    plain, other = (FidelityScorer(embedder, p).score(images, PROMPTS) for p in (photos, elsewhere))
    assert np.abs(plain - other).min() > 1e-4


def test_the_subject_counts_and_each_photo_has_its_own_mask(reward_folder):
    images, (photos, masks) = pictures(3, 50), photos_and_masks(2)
    embedder = OpenClipEmbedder(reward_folder)
    recoloured = photos[..., ::-1].copy()
    given = ((photos, masks), (recoloured, masks), (photos, masks[::-1]))
    scores = [FidelityScorer(embedder, p, masks=m).score(images, PROMPTS) for p, m in given]
    assert np.abs(scores[0] - scores[1]).min() > 1e-4 and np.abs(scores[0] - scores[2]).min() > 1e-5


def test_all_white_mask_leaves_the_photo_unchanged(reward_folder):
    images, photos = pictures(3, 50), pictures(2, 0)
    white, embedder = np.full(photos.shape[:3], 255, np.uint8), OpenClipEmbedder(reward_folder)
    assert (on_plain_backgrounds(photos[0], white[0]) == photos[0]).all()
    masked, plain = FidelityScorer(embedder, photos, masks=white), FidelityScorer(embedder, photos)
    np.testing.assert_allclose(masked.score(images, PROMPTS), plain.score(images, PROMPTS), atol=1e-6)


def test_cut_outs_are_embedded_once_and_one_photo_at_a_time(reward_folder):
    embedder, (photos, masks) = Counting(OpenClipEmbedder(reward_folder)), photos_and_masks(2)
    scorer = FidelityScorer(embedder, photos, masks=masks)
    assert embedder.batches == 0
    np.testing.assert_array_equal(scorer.score(photos, PROMPTS[:2]), scorer.score(photos, PROMPTS[:2]))
    assert embedder.batches == 4  # each photo once, the pictures twice


def test_masks_are_part_of_the_fingerprint(reward_folder):
    embedder, (photos, masks) = OpenClipEmbedder(reward_folder), photos_and_masks(2)
    changed = masks.copy()
    changed[1, 5, 5] ^= 1
    marks = [FidelityScorer(embedder, photos, masks=m).fingerprint for m in (None, masks, changed, masks[::-1])]
    assert len(set(marks)) == 4
    assert marks[1] == FidelityScorer(embedder, photos.copy(), "other", masks.copy()).fingerprint


@pytest.mark.parametrize(
    ("wrong", "seen"),
    [
        (lambda m: m.astype(np.float32) / 255, r"float32 \[2, 64, 64\]"),
        (lambda m: m > 127, r"bool \[2, 64, 64\]"),
        (lambda m: m[:1], r"uint8 \[1, 64, 64\]"),
        (lambda m: m[:, :32], r"uint8 \[2, 32, 64\]"),
        (lambda m: m[..., None], r"uint8 \[2, 64, 64, 1\]"),
        (lambda m: list(m), "list"),
    ],
    ids=["shares", "true and false", "too few", "half as high", "a channel too many", "a list"],
)
def test_masks_of_another_form_are_refused(reward_folder, wrong, seen):
    photos, masks = photos_and_masks(2)
    with pytest.raises(
        MetricsError, match=rf"masks are {seen}: one numpy array uint8 \[2, 64, 64\] is needed, one mask per photo"
    ):
        FidelityScorer(OpenClipEmbedder(reward_folder), photos, masks=wrong(masks))


def test_a_mask_without_a_subject_is_refused_by_its_number(reward_folder):
    embedder, (photos, masks) = OpenClipEmbedder(reward_folder), photos_and_masks(2)
    masks[1] = np.minimum(masks[1], 127)
    with pytest.raises(MetricsError, match="mask 2 of 2 shows no subject .*paint the subject white"):
        FidelityScorer(embedder, photos, masks=masks)
    masks[1, 30, 30] = 128
    FidelityScorer(embedder, photos, masks=masks)
