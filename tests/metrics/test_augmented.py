"""Tests the mean over views: by hand, its properties, and its use against tuned images on the toybox's reward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.metrics.augmented import AugmentedEmbedder, shifted, views
from dreambooth_dpo.metrics.embedders import DinoV2Embedder, Embedder, OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.scorers import FidelityScorer
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.models import weights_folder


class Corner:
    """An image's embedding is the direction of its upper left pixel's red: 0 right, 90 up, 180 left, 255 down."""

    name, fingerprint = "corner", "1"
    directions = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 255: (0, -1)}

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        self.calls.append(len(images))
        return np.asarray([self.directions[int(i[0, 0, 0])] for i in images], np.float32).reshape(len(images), 2)

    def embed_texts(self, texts):
        return np.ones((len(texts), 2), np.float32) / np.float32(2**0.5)


def row(*reds: int) -> np.ndarray:
    """One image a single pixel high."""
    return np.repeat(np.uint8(reds)[None, None, :, None], 3, axis=3)


def test_shifts_repeat_the_edge_by_hand():
    """Two rows 1 2 3 / 4 5 6. Down and right by one: 1 1 2 / 1 1 2. Up and left by one: 5 6 6 / 5 6 6."""
    image = np.repeat(np.uint8([[1, 2, 3], [4, 5, 6]])[None, ..., None], 3, axis=3)
    assert shifted(image, 1, 1)[0, ..., 0].tolist() == [[1, 1, 2], [1, 1, 2]]
    assert shifted(image, -1, -1)[0, ..., 0].tolist() == [[5, 6, 6], [5, 6, 6]]
    assert [v[0, ..., 0].tolist() for v in views(image)] == [
        [[1, 2, 3], [4, 5, 6]], [[3, 2, 1], [6, 5, 4]], [[1, 1, 2], [1, 1, 2]], [[5, 6, 6], [5, 6, 6]],
    ]  # fmt: skip


def test_shifts_are_three_percent_of_each_side():
    """100 high, 200 wide: 3 rows and 6 columns."""
    image = np.random.default_rng(0).integers(0, 256, (1, 100, 200, 3), dtype=np.uint8)
    _, _, right, left = views(image)
    np.testing.assert_array_equal(right[:, 3:, 6:], image[:, :-3, :-6])
    np.testing.assert_array_equal(left[:, :-3, :-6], image[:, 3:, 6:])


def test_embedding_is_the_normalised_mean_by_hand():
    """0 90: the views' corners are 0, 90, 0, 90, their mean (1/2, 1/2). 0 0 90: 0, 90, 0, 0, their mean (3/4, 1/4)."""
    embedder = AugmentedEmbedder(Corner())
    np.testing.assert_allclose(embedder.embed_images(row(0, 90)), [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
    np.testing.assert_allclose(embedder.embed_images(row(0, 0, 90)), np.array([[3, 1]]) / 10**0.5, rtol=1e-6)


def test_views_that_cancel_out_are_refused():
    with pytest.raises(
        MetricsError, match=r"corner: the embeddings of a picture's views cancel out\. Turn augment off"
    ):
        AugmentedEmbedder(Corner()).embed_images(row(0, 180))


@given(st.lists(st.sampled_from([0, 90]), min_size=1, max_size=6), st.integers(1, 4))
def test_embeddings_are_unit_float32_whatever_the_batch(reds: list[int], count: int):
    embedder = AugmentedEmbedder(Corner())
    one, many = embedder.embed_images(row(*reds)), embedder.embed_images(np.repeat(row(*reds), count, axis=0))
    assert many.dtype == np.float32 and many.shape == (count, 2)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-6)
    assert (many == one).all()


@given(st.integers(1, 40), st.integers(1, 40))
def test_views_keep_the_shape_and_leave_a_plain_image_unchanged(height: int, width: int):
    plain = np.full((2, height, width, 3), 90, np.uint8)
    for view in views(plain):
        assert (view == plain).all() and view.dtype == np.uint8
    np.testing.assert_array_equal(AugmentedEmbedder(Corner()).embed_images(plain), Corner().embed_images(plain))


def test_last_result_is_cached_and_protected_from_changes():
    inner = Corner()
    embedder = AugmentedEmbedder(inner)
    first = embedder.embed_images(row(0, 90))
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(embedder.embed_images(row(0, 90)), kept)
    assert inner.calls == [1, 1, 1, 1]
    embedder.embed_images(row(90, 0))
    assert len(inner.calls) == 8


def test_wrapped_embedder_has_its_own_fingerprint(reward_folder, dino_folder):
    inner = OpenClipEmbedder(reward_folder)
    embedder, none = AugmentedEmbedder(inner), np.zeros((0, 64, 64, 3), np.uint8)
    assert isinstance(embedder, Embedder) and inner.name in embedder.name
    other = AugmentedEmbedder(DinoV2Embedder(dino_folder))
    assert len({inner.fingerprint, embedder.fingerprint, other.fingerprint}) == 3
    assert embedder.fingerprint == AugmentedEmbedder(OpenClipEmbedder(reward_folder)).fingerprint
    assert embedder.embed_images(none).shape == (0, 128)
    np.testing.assert_array_equal(embedder.embed_texts(["a robot"]), inner.embed_texts(["a robot"]))
    assert other.embed_texts([]) is None and other.embed_texts(["a robot"]) is None
    with pytest.raises(MetricsError, match=r"images is float32"):
        embedder.embed_images(none.astype(np.float32))


# --- what it is for ---


def tuned(embedder: OpenClipEmbedder, images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Images uint8 [n, H, W, 3], each value moved by up to 4 along the gradient's sign, to raise the bare reward."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (embedder.preprocess.mean, embedder.preprocess.std))
    start, goal = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(target).float()
    x = start.clone()
    for _ in range(10):
        x.requires_grad_(True)
        score = (embedder._model.encode_image((x - mean) / std, normalize=True) @ goal).sum()
        (gradient,) = torch.autograd.grad(score, x)
        x = (x.detach() + 0.002 * gradient.sign()).clamp(0, 1)
        x = torch.minimum(torch.maximum(x, start - 4 / 255), start + 4 / 255)
    return (x * 255).round().byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("number", [0, 1])
def test_images_tuned_against_the_bare_reward_gain_less_under_the_mean_over_views(number: int):
    concept = concept_from_seed(number).to_concept()
    bare = OpenClipEmbedder(weights_folder("reward"))
    scorers = [FidelityScorer(e, concept.references, masks=concept.masks) for e in (bare, AugmentedEmbedder(bare))]
    before = [s.score(concept.held_out, []) for s in scorers]
    hacked = tuned(bare, concept.held_out, scorers[0]._mean)
    gain, averaged = (s.score(hacked, []) - b for s, b in zip(scorers, before, strict=True))
    assert (gain > 0.005).all() and averaged.mean() < 0.7 * gain.mean(), (gain, averaged)
