"""Tests fidelity by patches: weights and scores worked out by hand, and tiny DINOv2, DINOv3 and CLIP models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dreambooth_dpo.metrics import embedders, patches
from dreambooth_dpo.metrics.augmented import AugmentedEmbedder, views
from dreambooth_dpo.metrics.embedders import load_embedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.patches import (
    ByPatches,
    PatchFidelityScorer,
    fidelity_scorer,
    mask_weights,
    patch_scores,
    recurrence,
    recurrence_weights,
)
from dreambooth_dpo.metrics.pictures import Preprocess
from dreambooth_dpo.metrics.scorers import FidelityScorer
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.models import weights_folder

X, Y, Z = np.eye(3, dtype=np.float32)
PHOTOS = np.asarray([[X, Y], [X, Z]])
"""Two photos of two patches: X is in both, Y and Z in one each."""


def test_what_recurs_weighs_more() -> None:
    """Best matches in the other photo: X 1, Y 0; X 1, Z 0. With sharpness 1: e / (e + 1) = 0.731059, and 0.268941."""
    np.testing.assert_allclose(recurrence(PHOTOS), [[1, 0], [1, 0]])
    np.testing.assert_allclose(recurrence_weights(PHOTOS, 1.0), [[0.731059, 0.268941]] * 2, atol=1e-6)
    three = np.asarray([[X, Y], [X, Z], [Y, Z]])  # each patch is in one of the two other photos
    np.testing.assert_allclose(recurrence(three), 0.5)
    np.testing.assert_allclose(recurrence_weights(three), 0.5)
    np.testing.assert_allclose(recurrence_weights(PHOTOS[:1]), [[0.5, 0.5]])


def test_scores_by_hand() -> None:
    """(0.6, 0.8, 0): photo 1 gives 0.6 * 0.731059 + 0.8 * 0.268941 = 0.653788, photo 2 0.6 * 0.731059 = 0.438635."""
    weights = recurrence_weights(PHOTOS, 1.0)
    mixed = (0.6 * X + 0.8 * Y)[None]
    pictures = np.stack([X[None], mixed, Z[None]])
    np.testing.assert_allclose(patch_scores(pictures, PHOTOS, weights), [0.731059, 0.546212, 0.134471], atol=1e-6)
    both = np.stack([np.stack([X, Z]), np.stack([Z, X])])  # the place of a patch does not matter
    np.testing.assert_allclose(patch_scores(both, PHOTOS, weights), [(0.731059 + 1) / 2] * 2, atol=1e-6)


def test_masks_weigh_by_the_subject_in_a_patch() -> None:
    """A mask of 4 x 4 whose left half is white, on patches of 2 x 2: left ones 1, right ones 0, of sum 2."""
    half = Preprocess((4, 4), (0.5,) * 3, (0.25,) * 3)
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, :, :2] = 255
    masks[1, 0, :3] = 255  # 2 of 4, and 1 of 4 pixels of the upper patches
    np.testing.assert_allclose(mask_weights(masks, half, (2, 2)), [[0.5, 0, 0.5, 0], [2 / 3, 1 / 3, 0, 0]], atol=1e-6)
    wide = np.zeros((1, 4, 12), np.uint8)
    wide[:, :, :2] = 255
    with pytest.raises(MetricsError, match="of photo 1 the scorer sees the middle square alone"):
        mask_weights(wide, half, (2, 2))


@pytest.fixture(scope="module")
def dinov3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder with a two-layer DINOv3 of random weights, with four registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    folder = tmp_path_factory.mktemp("dinov3")
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16,
        num_register_tokens=4,
    )  # fmt: skip
    DINOv3ViTModel(config).save_pretrained(folder)
    settings = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_patches_are_the_tokens_after_class_and_registers(dino_folder: Path, dinov3_folder: Path) -> None:
    from transformers import AutoModel

    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for folder, skipped, side in ((dino_folder, 1, 4), (dinov3_folder, 5, 4)):
        embedder = load_embedder(folder)
        with torch.no_grad():
            tokens = AutoModel.from_pretrained(folder)(embedder.preprocess(images)).last_hidden_state[:, skipped:]
        theirs = torch.nn.functional.normalize(tokens, dim=-1).reshape(3, side, side, 32).numpy()
        np.testing.assert_allclose(embedder.embed_patches(images), theirs, atol=1e-5)
        assert embedder.embed_patches(images[:0]).shape == (0, side, side, 32)


def test_clip_gives_the_middle_block(reward_folder: Path) -> None:
    """By hand: the tower's own embedding, then the first two of its four blocks; the class token is left out."""
    embedder = load_embedder(reward_folder)
    images = concept_from_seed(0).references
    visual = embedder._model.visual
    with torch.no_grad():
        tokens = visual._embeds(embedder.preprocess(images))
        for block in list(visual.transformer.resblocks)[:2]:
            tokens = block(tokens)
    theirs = torch.nn.functional.normalize(tokens[:, 1:], dim=-1).numpy()
    np.testing.assert_allclose(embedder.embed_patches(images).reshape(len(images), 64, -1), theirs, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_batches_and_order_do_not_change_scores(
    dino_folder: Path, monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    toy = concept_from_seed(1)
    images, masks = toy.held_out, toy.masks if masked else None
    found = []
    for batch, block in ((64, 16), (3, 2), (1, 5)):
        monkeypatch.setattr(embedders, "BATCH", batch)
        monkeypatch.setattr(patches, "BLOCK", block)
        scorer = PatchFidelityScorer(load_embedder(dino_folder), toy.references, masks=masks)
        found += [scorer.score(images, [""] * 5), scorer.score(images[::-1].copy(), [""] * 5)[::-1]]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-6)
    assert np.ptp(found[0]) > 1e-4
    own = scorer.score(toy.references, [""] * 5)
    assert scorer.score(images[:0], []).shape == (0,)
    assert (own <= 1 + 1e-6).all()


def test_a_photo_is_like_itself(dino_folder: Path) -> None:
    """With one photo each patch finds itself: 1. Another picture has less."""
    toy = concept_from_seed(2)
    scorer = PatchFidelityScorer(load_embedder(dino_folder), toy.references[:1])
    scores = scorer.score(np.stack([toy.references[0], toy.held_out[0]]), ["", ""])
    np.testing.assert_allclose(scores[0], 1, atol=1e-5)
    assert scores[1] < 0.999


def test_augment_takes_the_mean_over_views(dino_folder: Path) -> None:
    toy = concept_from_seed(0)
    plain = PatchFidelityScorer(load_embedder(dino_folder), toy.references)
    mean = PatchFidelityScorer(AugmentedEmbedder(load_embedder(dino_folder)), toy.references)
    looked = [plain.score(view, [""] * 5) for view in views(toy.held_out)]
    np.testing.assert_allclose(mean.score(toy.held_out, [""] * 5), np.mean(looked, axis=0), atol=1e-6)
    assert mean.fingerprint != plain.fingerprint


def test_fingerprints_depend_on_photos_masks_and_kind(dino_folder: Path) -> None:
    toy, embedder = concept_from_seed(0), load_embedder(dino_folder)
    whole = fidelity_scorer(embedder, toy.references, "fidelity", None)
    by_patches = fidelity_scorer(ByPatches(embedder), toy.references, "fidelity", None)
    assert isinstance(whole, FidelityScorer)
    assert isinstance(by_patches, PatchFidelityScorer)
    marks = [
        s.fingerprint
        for s in (
            whole,
            by_patches,
            PatchFidelityScorer(embedder, toy.references, masks=toy.masks),
            PatchFidelityScorer(embedder, toy.references[:4]),
        )
    ]
    assert len(set(marks)) == 4
    again = PatchFidelityScorer(load_embedder(dino_folder), toy.references)
    assert again.fingerprint == by_patches.fingerprint


def test_a_model_without_patches_is_refused() -> None:
    resnet = load_embedder(weights_folder("judge"))
    with pytest.raises(MetricsError, match="has no patches.*choose a vision transformer, such as DINOv2"):
        ByPatches(resnet)
