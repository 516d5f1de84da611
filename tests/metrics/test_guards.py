"""Tests copy-paste measure and Vendi score on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.metrics.guards import (
    CopyPasteScorer,
    DiversityScorer,
    SaturationScorer,
    copy_paste,
    vendi_by_prompt,
    vendi_score,
)


def at(*degrees: float) -> np.ndarray:
    """Unit vectors [n, 2] at these angles: the angle between two is the difference of their numbers."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def embeddings(rows: st.SearchStrategy[int], d: int = 4) -> st.SearchStrategy[np.ndarray]:
    """Arrays [rows, d] without a row near zero, which has no direction."""
    values = st.floats(-1, 1, allow_nan=False, width=32)
    made = rows.flatmap(lambda n: arrays(np.float64, (n, d), elements=values))
    return made.filter(lambda a: bool((np.linalg.norm(a, axis=1) > 0.1).all()))


def test_copy_paste_on_an_arc():
    """Reference at 0 degrees, held-out photo at 60, so theta_tr = 60. Pictures between and outside:

    0 -> (60 - 0)/60 = 1; 60 -> (0 - 60)/60 = -1; 30 -> 0; 15 -> (45 - 15)/60 = 0.5; 45 -> (15 - 45)/60 = -0.5; -30 ->
    (90 - 30)/60 = 1 (beyond the reference: as much a copy as can be); 90 -> (30 - 90)/60 = -1; 210 -> (150 - 150)/60 =
    0.
    """
    m = copy_paste(at(0, 60, 30, 15, 45, -30, 90, 210), at(60), at(0))
    assert m.dtype == np.float64
    np.testing.assert_allclose(m, [1, -1, 0, 0.5, -0.5, 1, -1, 0], atol=1e-9)


def test_copy_paste_takes_the_nearest_photo_of_either_kind():
    """References at 0 and 100, held-out photos at 40 and 180; pictures at 10 and 90.

    10: nearest reference 0 (10 degrees), nearest held-out 40 (30), theta_tr = 40: (30 - 10)/40 = 0.5.
    90: nearest reference 100 (10), nearest held-out 40 (50), theta_tr = 60: (50 - 10)/60 = 2/3.
    """
    np.testing.assert_allclose(copy_paste(at(10, 90), at(40, 180), at(0, 100)), [0.5, 2 / 3], atol=1e-9)


def test_copy_paste_where_reference_and_held_out_coincide():
    """theta_gt = theta_gr and theta_tr = 0: 0/eps = 0, neither NaN nor a copy."""
    np.testing.assert_array_equal(copy_paste(at(0, 30), at(0), at(0)), [0, 0])


def test_copy_paste_resolves_angles_that_a_cosine_cannot():
    """Reference at 0 and held-out photo at 1e-4 degrees: cosine 1 - 1.5e-12.

    A picture at a quarter gives (0.75 - 0.25)/1 = 0.5.
    """
    np.testing.assert_allclose(copy_paste(at(0.25e-4), at(1e-4), at(0)), [0.5], atol=1e-6)


def test_copy_paste_of_no_images_is_empty():
    assert copy_paste(np.zeros((0, 2)), at(60), at(0)).shape == (0,)


@settings(deadline=None)
@given(embeddings(st.integers(1, 5)), embeddings(st.integers(1, 3)), embeddings(st.integers(1, 3)))
def test_copy_paste_is_bounded_and_changes_sign_with_the_sides(g, t, r):
    """In [-1, 1]; swapping references and held-out photos gives the negative; lengths of embeddings do not matter."""
    m = copy_paste(g, t, r)
    assert (np.abs(m) <= 1).all()
    np.testing.assert_allclose(copy_paste(g, r, t), -m, atol=1e-9)
    np.testing.assert_allclose(copy_paste(3 * g, t, 0.5 * r), m, atol=1e-6)


@pytest.mark.parametrize(
    ("g", "t", "r", "words"),
    [
        (at(0), np.zeros((0, 2)), at(0), "held_out has shape"),
        (at(0), at(0), np.zeros((0, 2)), "references has shape"),
        (at(0), at(0), np.ones((1, 3)), "lengths 2, 2, 3"),
        (np.full((1, 2), np.nan), at(0), at(0), "generated holds a NaN"),
        (at(0), np.zeros((1, 2)), at(0), "held_out holds"),
    ],
)
def test_copy_paste_refuses_embeddings_without_a_direction(g, t, r, words):
    with pytest.raises(MetricsError, match=words):
        copy_paste(g, t, r)


def test_vendi_of_two_vectors_at_60_degrees():
    """Cosine 1/2: K/n = [[.5, .25], [.25, .5]] has eigenvalues .75 and .25.

    exp(-.75 ln .75 - .25 ln .25) = e^.562335 = 1.754765.
    """
    assert vendi_score(at(0, 60)) == pytest.approx(1.754765, abs=1e-6)


def test_vendi_of_three_images_two_of_them_alike():
    """Eigenvalues of K/3: 2/3 (the pair) and 1/3: exp(ln 3 - (2/3) ln 2) = 3 / 2^(2/3) = 1.889882."""
    assert vendi_score(np.eye(2)[[0, 0, 1]]) == pytest.approx(3 / 2 ** (2 / 3), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_vendi_of_identical_and_of_orthogonal(n):
    assert vendi_score(np.tile([[3.0, 4.0]], (n, 1))) == pytest.approx(1, abs=1e-9)
    assert vendi_score(np.eye(8)[:n]) == pytest.approx(n, abs=1e-9)


@settings(deadline=None)
@given(embeddings(st.integers(1, 8)), st.randoms(use_true_random=False))
def test_vendi_is_between_one_and_n_whatever_the_order(x, random):
    """Duplicating the whole set does not change the score, because shares count, not numbers."""
    order = list(range(len(x)))
    random.shuffle(order)
    score = vendi_score(x)
    assert 1 <= score <= len(x)
    assert vendi_score(x[order]) == pytest.approx(score, rel=1e-9)
    assert vendi_score(np.concatenate([x, x])) == pytest.approx(score, rel=1e-6)


def test_vendi_by_prompt_groups_images_by_prompt():
    """ "b" has two orthogonal images (2), "a" two equal ones (1), in the order of first appearance."""
    scores = vendi_by_prompt(np.eye(3)[[0, 1, 2, 1]], ["b", "a", "b", "a"])
    assert list(scores) == ["b", "a"]
    assert scores == pytest.approx({"b": 2, "a": 1})
    assert vendi_by_prompt(np.zeros((0, 3)), []) == {}


def test_vendi_refuses_no_images_and_different_counts():
    with pytest.raises(MetricsError, match="at least 1"):
        vendi_score(np.zeros((0, 3)))
    with pytest.raises(MetricsError, match="2 embeddings for 1 prompts"):
        vendi_by_prompt(np.eye(2), ["a"])


class FirstPixelEmbedder:
    """The first pixel's colour as a vector, so that every angle is known. No text tower."""

    name, fingerprint = "first pixel", "abc"

    def __init__(self):
        self.calls = 0

    def embed_images(self, images):
        self.calls += 1
        colours = images[:, 0, 0].astype(np.float32)
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)

    def embed_texts(self, texts):
        return None


def flat(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.tile(np.array(colours, np.uint8)[:, None, None], (1, 4, 4, 1))


def test_copy_paste_scorer():
    """Red was trained on, green held out: red scores 1, green -1, yellow (45 degrees from both) 0.

    Photos are embedded once.
    """
    embedder = FirstPixelEmbedder()
    scorer = CopyPasteScorer(embedder, held_out=flat((0, 200, 0)), references=flat((200, 0, 0)))
    np.testing.assert_allclose(
        scorer.score(flat((90, 0, 0), (0, 90, 0), (90, 90, 0)), ["p"] * 3), [1, -1, 0], atol=1e-6
    )
    assert embedder.calls == 3
    scorer.score(flat((90, 0, 0)), ["p"])
    assert embedder.calls == 4
    assert scorer.score(np.zeros((0, 4, 4, 3), np.uint8), []).shape == (0,)


def test_copy_paste_scorer_fingerprint_tells_references_from_held_out_photos():
    red, green = flat((200, 0, 0)), flat((0, 200, 0))
    one = CopyPasteScorer(FirstPixelEmbedder(), red, green).fingerprint
    assert one == CopyPasteScorer(FirstPixelEmbedder(), red.copy(), green.copy()).fingerprint
    assert one != CopyPasteScorer(FirstPixelEmbedder(), green, red).fingerprint


def test_copy_paste_scorer_needs_photos_of_both_kinds():
    none = np.zeros((0, 4, 4, 3), np.uint8)
    with pytest.raises(MetricsError, match="no held_out photos"):
        CopyPasteScorer(FirstPixelEmbedder(), none, flat((1, 2, 3)))
    with pytest.raises(MetricsError, match="no references photos"):
        CopyPasteScorer(FirstPixelEmbedder(), flat((1, 2, 3)), none)


def test_diversity_scorer_gives_each_image_its_prompts_vendi_score():
    """ "a": red and green, orthogonal (2); "b": red twice (1), in any order."""
    red, green = (200, 0, 0), (0, 200, 0)
    scorer = DiversityScorer(FirstPixelEmbedder())
    np.testing.assert_allclose(scorer.score(flat(red, red, green, red), ["a", "b", "a", "b"]), [2, 1, 2, 1], atol=1e-6)
    assert scorer.score(np.zeros((0, 4, 4, 3), np.uint8), []).shape == (0,)
    with pytest.raises(MetricsError, match="1 images for 2 prompts"):
        scorer.score(flat(red), ["a", "b"])
    assert scorer.fingerprint != CopyPasteScorer(FirstPixelEmbedder(), flat(green), flat(red)).fingerprint


def test_saturation_is_the_mean_chroma_of_the_pixels():
    """Grey is 0, pure red 1; (153, 51, 102) has 102 / 255 = 0.4. Half of the pixels grey, half pure: 0.5."""
    scorer, half = SaturationScorer(), flat((0, 0, 255))
    half[:, :2] = 90
    shown = np.concatenate([flat((90, 90, 90), (255, 0, 0), (153, 51, 102)), half])
    np.testing.assert_allclose(scorer.score(shown, [""] * 4), [0, 1, 0.4, 0.5])
    assert scorer.score(np.zeros((0, 4, 4, 3), np.uint8), []).shape == (0,)
    with pytest.raises(MetricsError):
        scorer.score(shown.astype(np.float32), [""] * 4)
