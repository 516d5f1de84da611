"""Tests the background guard: masks and fills by hand, properties by hypothesis, and the toybox's backgrounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dreambooth_dpo.metrics.backgrounds import BackgroundScorer, place_of, shows_place, without_subject
from dreambooth_dpo.metrics.embedders import OpenClipEmbedder
from dreambooth_dpo.metrics.errors import MetricsError
from dreambooth_dpo.toybox.concepts import concept_from_seed
from dreambooth_dpo.toybox.models import weights_folder
from dreambooth_dpo.toybox.world import BACKGROUNDS, Scene, render


class Colour:
    """An image's embedding is the direction of its mean colour."""

    name, fingerprint = "colour", "1"

    def embed_images(self, images: np.ndarray) -> np.ndarray:
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        return (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)

    def embed_texts(self, texts):
        return None


def spot(size: int, value: int = 255) -> np.ndarray:
    """A mask with one subject pixel in its middle."""
    mask = np.zeros((size, size), np.uint8)
    mask[size // 2, size // 2] = value
    return mask


def test_the_subject_is_grown_by_hand():
    """5 x 5 with one subject pixel: a square of 3 is removed, 16 pixels of background remain.

    100 x 100: 3 pixels to each side, 49 are removed.
    """
    assert place_of(spot(5)).sum() == 16 and not place_of(spot(5))[1:4, 1:4].any()
    assert (~place_of(spot(100))).sum() == 49
    assert place_of(spot(5, 31)).all() and place_of(spot(5, 32)).sum() == 16


def test_a_hole_is_filled_from_its_rim_by_hand():
    """10 ? ? ? 50: the rim takes 10 and 50 from its neighbours, the middle the mean of 10, 10, 50, 50."""
    photo = np.repeat(np.uint8([[10, 200, 201, 202, 50]])[..., None], 3, axis=2)
    filled = without_subject(photo, np.uint8([[0, 0, 255, 0, 0]]))
    assert filled[0, :, 1].tolist() == [10, 10, 30, 50, 50]


photos = arrays(np.uint8, (9, 7, 3))
masks = arrays(np.uint8, (9, 7), elements=st.sampled_from([0, 0, 0, 0, 0, 255])).filter(
    lambda m: place_of(m).any() and m.any()
)


@given(photos, masks, st.integers(0, 255))
def test_background_is_unchanged_and_no_subject_pixel_is_left(photo: np.ndarray, mask: np.ndarray, other: int):
    place = place_of(mask)
    filled = without_subject(photo, mask)
    np.testing.assert_array_equal(filled[place], photo[place])
    assert (filled >= photo[place].min(axis=0)).all() and (filled <= photo[place].max(axis=0)).all()
    np.testing.assert_array_equal(filled, without_subject(np.where(place[..., None], photo, np.uint8(other)), mask))
    # To one grey value: a mean that falls on a half may round up from one side and down from the other.
    turned = without_subject(photo[::-1, ::-1], mask[::-1, ::-1])
    np.testing.assert_allclose(filled[::-1, ::-1].astype(int), turned.astype(int), rtol=0, atol=1)


def test_photo_filled_by_the_subject_shows_no_background():
    white, part = np.full((20, 20), 255, np.uint8), np.full((20, 20), 255, np.uint8)
    part[:, 18:] = 0  # one column stays when the subject is grown: 5 %
    assert shows_place(np.stack([white, part, spot(20)])).tolist() == [False, True, True]
    with pytest.raises(MetricsError, match="fills the whole photo.*leave this photo out"):
        without_subject(np.zeros((20, 20, 3), np.uint8), white)


def test_score_is_the_mean_cosine_with_the_backgrounds_by_hand():
    """Red and green backgrounds, a blue subject: a red image has cosines 1 and 0, a blue one 0 and 0."""
    places = np.zeros((2, 9, 9, 3), np.uint8)
    places[0, ..., 0] = places[1, ..., 1] = 200
    marks = np.stack([spot(9)] * 2)
    places[marks == 255] = (0, 0, 255)
    seen = np.zeros((3, 4, 4, 3), np.uint8)
    seen[0, ..., 0], seen[1, ..., 2], seen[2, ..., :2] = 90, 90, 90
    scorer = BackgroundScorer(Colour(), places, marks)
    scores = scorer.score(seen, ["", "", ""])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, [0.5, 0, 0.5**0.5], atol=1e-7)
    assert scorer.score(seen[:0], []).shape == (0,)


def test_photos_filled_by_the_subject_are_left_out_and_refused_if_all_are():
    places = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    marks = np.stack([spot(20), np.full((20, 20), 255, np.uint8), spot(20)])
    few = BackgroundScorer(Colour(), places[[0, 2]], marks[[0, 2]])
    np.testing.assert_array_equal(BackgroundScorer(Colour(), places, marks).score(places, []), few.score(places, []))
    with pytest.raises(
        MetricsError, match="all but 5% of each of the 1 photos, so they show no background: add photos"
    ):
        BackgroundScorer(Colour(), places[1:2], marks[1:2])
    with pytest.raises(MetricsError, match="mask 1 of 1 shows no subject"):
        BackgroundScorer(Colour(), places[:1], marks[:1] * 0)
    with pytest.raises(MetricsError, match="references is float64"):
        BackgroundScorer(Colour(), places / 255, marks)


def test_fingerprint_covers_everything_a_score_depends_on():
    places = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    marks = np.stack([spot(9)] * 2)
    changed, moved, other = places.copy(), marks.copy(), Colour()
    changed[0, 0, 0, 0] ^= 1
    moved[0, 0, 0] = 255
    other.fingerprint = "2"
    given = ((Colour(), places, marks), (Colour(), changed, marks), (Colour(), places, moved), (other, places, marks))
    assert len({BackgroundScorer(*parts).fingerprint for parts in given}) == 4
    assert (
        BackgroundScorer(*given[0]).fingerprint
        == BackgroundScorer(Colour(), places.copy(), marks.copy(), "other").fingerprint
    )


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_toybox_photos_background_scores_high_with_any_subject(number: int):
    """Other backgrounds score lower, by 0.2 on average, with the photos' subject as well as with another."""
    toy, stranger = concept_from_seed(number), concept_from_seed(number + 5)
    scorer = BackgroundScorer(OpenClipEmbedder(weights_folder("judge")), toy.references, toy.masks)

    def mean(who, place: str) -> float:
        drawn = np.stack([render(Scene(who.noun, who.body, who.belly, place), 900 + i) for i in range(4)])
        return float(scorer.score(drawn, [""] * 4).mean())

    for who in (toy, stranger):
        elsewhere = [mean(who, place) for place in BACKGROUNDS if place != toy.background]
        assert (
            mean(who, toy.background) > np.mean(elsewhere) + 0.2 and mean(who, toy.background) > max(elsewhere) + 0.05
        ), elsewhere
