"""Tests the concept's words and photos at the door: what is refused, and what is doubted."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.concept import NO_SCALE, Concept, doubts
from dreambooth_dpo.dpo_core.errors import UserError

PHOTOS = np.stack([np.full((4, 4, 3), grey, np.uint8) for grey in (0, 90, 200)])


@pytest.mark.parametrize(
    ("identifier", "class_noun"), [("dog", "dog"), ("Dog", "dog"), ("toy", "toy robot"), ("toy robot", "big toy robot")]
)
def test_an_identifier_that_is_a_word_of_the_class_noun_is_refused(identifier, class_noun):
    """Without the identifier, prompts would lose their class noun, which alignment is measured by."""
    with pytest.raises(UserError, match=f"identifier '{identifier}' is a word of class_noun '{class_noun}'"):
        Concept(identifier, class_noun, PHOTOS)


@pytest.mark.parametrize("value", [None, 7, "", " "])
def test_a_value_that_is_no_word_is_refused_by_name(value):
    with pytest.raises(UserError, match="^identifier is "):
        Concept(value, "dog", PHOTOS)
    with pytest.raises(UserError, match="^class_noun is "):
        Concept("sks", value, PHOTOS)


@pytest.mark.parametrize(
    ("identifier", "class_noun", "said"),
    [
        ("sks", "dog", None),
        ("ohwx", "toy robot", None),
        ("sks dog", "dog", "prompts name the subject 'sks dog dog'"),
        ("bot", "robot", "'bot' is a part of the class noun 'robot'"),
    ],
)
def test_words_that_are_unlikely_to_be_meant_are_doubted(identifier, class_noun, said):
    found = doubts(Concept(identifier, class_noun, PHOTOS))
    assert len(found) == (said is not None) and (said is None or said in found[0])


def test_one_photo_has_no_scale():
    """One photo, also if it is given several times; with held-out photos there is a scale."""
    for references in (PHOTOS[:1], PHOTOS[[0, 0]]):
        assert doubts(Concept("sks", "dog", references)) == [f"{NO_SCALE}. Three to five photos are usual"]
        assert doubts(Concept("sks", "dog", references, PHOTOS[1:])) == []
    assert Concept("sks", "dog", PHOTOS[[0, 0, 2]]).different_photos == 2


def test_held_out_photos_that_are_reference_photos_are_said():
    assert "1 of 2 held-out photos are reference photos too" in doubts(Concept("sks", "dog", PHOTOS[:2], PHOTOS[1:]))[0]
