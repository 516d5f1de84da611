"""Tests mask checks: what is white, shares, and the orientation of all masks of a concept."""

from __future__ import annotations

import numpy as np
import pytest

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.masks import absurd, on_grey, oriented, percent, share, shares, shows, surrounds
from dreambooth_dpo.toybox.concepts import concept_from_seed


def box(top: int, bottom: int, left: int, right: int, side: int = 40) -> np.ndarray:
    """A mask of side x side pixels, white in rows top..bottom - 1 and columns left..right - 1."""
    mask = np.zeros((side, side), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


SUBJECTS = {
    "in the middle": box(10, 30, 10, 30),
    "small": box(18, 23, 18, 23),
    "in a corner": box(0, 20, 0, 20),
    "a bust": box(10, 40, 8, 32),
    "nearly all": box(1, 39, 1, 39),
    "touches all borders": box(0, 40, 12, 28) | box(12, 28, 0, 40),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_and_its_inverse_are_told_apart(name):
    mask = SUBJECTS[name]
    assert shows(mask) == "subject" and shows(255 - mask) == "background"
    assert np.array_equal(oriented(mask[None])[0], mask[None]) and oriented(mask[None])[1] == ""
    turned, said = oriented(255 - mask[None])
    assert np.array_equal(turned, mask[None])
    assert said == "masks inverted: white was the background, as Load Image gives for cut-outs"


def test_halves_cannot_be_told():
    for mask in (box(0, 40, 20, 40), box(0, 20, 0, 40)):
        assert shows(mask) == shows(255 - mask) == "unclear"
        with pytest.raises(UserError, match="cannot be told.*Set mask_shows to 'subject'"):
            oriented(mask[None])
        assert np.array_equal(oriented(mask[None], "subject")[0], mask[None])
        turned, said = oriented(mask[None], "background")
        assert np.array_equal(turned, 255 - mask[None]) and "mask_shows is 'background'" in said


def test_masks_are_judged_together():
    unclear, clear = box(0, 40, 20, 40), SUBJECTS["in the middle"]
    assert oriented(np.stack([unclear, clear]))[1] == ""
    turned, said = oriented(np.stack([unclear, 255 - clear]))
    assert said and np.array_equal(turned, np.stack([255 - unclear, clear]))
    with pytest.raises(UserError, match="in mask 2 white seems to be the subject, in mask 1, 3 the background"):
        oriented(np.stack([255 - clear, clear, 255 - clear]))


def test_toybox_masks_are_right_as_they_are():
    for seed in range(12):
        masks = concept_from_seed(seed).masks
        assert oriented(masks)[0] is masks and np.array_equal(oriented(255 - masks)[0], masks)
        assert not any(absurd(mask) for mask in masks)


def test_a_frame_surrounds_and_a_bust_does_not():
    """The inverse of a bust is black along the bottom, so it is judged, but not beyond doubt."""
    assert surrounds(255 - SUBJECTS["in the middle"])
    assert shows(255 - SUBJECTS["a bust"]) == "background" and not surrounds(255 - SUBJECTS["a bust"])
    assert not any(surrounds(mask) for mask in SUBJECTS.values())


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((20, 20)), "shows no subject: no pixel is white"),
        (np.full((20, 20), 127), "shows no subject"),
        (np.full((20, 20), 255), "covers 100 % of its photo, so it separates nothing"),
        (np.full((20, 20), 128), "covers 100 %"),
        (box(0, 1, 0, 3, 20), "covers only 0.75 % of its photo"),
        (255 - box(0, 1, 0, 3, 20), "covers 99.2 % of its photo"),
    ],
)
def test_absurd_masks_are_named(mask, said):
    assert said in absurd(mask.astype(np.uint8))


def test_soft_and_usual_masks_are_not_absurd():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert absurd(ramp) is None and share(ramp) == 0.5
    assert absurd(box(0, 1, 0, 4, 20)) is None, "1 % is allowed"


def test_shares_in_words():
    masks = [box(0, 20, 0, 40), box(0, 1, 0, 1)]
    assert shares(["a.png", "b.png"], masks) == "masks cover 50 % of a.png, 0.062 % of b.png"
    assert [percent(x) for x in (0, 0.003, 0.01, 0.41, 0.997, 1)] == ["0 %", "0.3 %", "1 %", "41 %", "99.7 %", "100 %"]


def test_on_grey_by_hand():
    """Mask 255, 0 and 51 (a fifth): 0.2 * 200 + 0.8 * 128 = 142.4."""
    found = on_grey(np.full((1, 1, 3, 3), 200, np.uint8), np.array([[[255, 0, 51]]], np.uint8))
    assert found[0, 0, :, 0].tolist() == [200, 128, 142]
