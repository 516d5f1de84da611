"""Concept's photos, masks and cut-outs as graphs give them: which way round masks are, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.nodes.stages.concept import concept_of, empty_word
from dreambooth_dpo.toybox.concepts import concept_from_seed

TOY = concept_from_seed(0)
PHOTOS = torch.from_numpy(TOY.references).float() / 255
MASKS = torch.from_numpy(TOY.masks).float() / 255


def made(references=PHOTOS, masks=None, **more):
    return concept_of("sks", "robot", references, masks=masks, **more)


def refused(*given, **more) -> str:
    with pytest.raises(UserError) as error:
        made(*given, **more)
    return str(error.value)


def rgba(photos=PHOTOS, masks=MASKS) -> torch.Tensor:
    return torch.cat([photos, masks[..., None]], dim=-1)


def test_right_masks_give_what_they_gave_before():
    found = made(PHOTOS, MASKS)
    assert np.array_equal(found.concept.references, TOY.references) and np.array_equal(found.concept.masks, TOY.masks)
    assert found.said.startswith("5 photos, masks cover ") and "inverted" not in found.said
    soft = torch.rand((5, 64, 64), generator=torch.Generator().manual_seed(0)) * 0.4 * (1 - MASKS) + MASKS * 0.9
    expected = (soft.clamp(0, 1) * 255).round().byte().numpy()
    assert np.array_equal(made(PHOTOS, soft).concept.masks, expected)


def test_masks_of_cut_outs_from_load_image_are_turned_and_said():
    """Load Image gives 1 - alpha: a white background."""
    found = made(PHOTOS, 1 - MASKS)
    assert np.array_equal(found.concept.masks, TOY.masks) and np.array_equal(found.concept.references, TOY.references)
    assert "Masks inverted: white was the background, as Load Image gives for cut-outs." in found.said
    shown = np.stack([np.asarray(picture) for picture in found.shown])
    assert (shown[TOY.masks == 0] == 128).all() and np.array_equal(
        shown[TOY.masks == 255], TOY.references[TOY.masks == 255]
    )


def test_what_white_is_can_be_said():
    assert np.array_equal(made(PHOTOS, MASKS, mask_shows="background").concept.masks, 255 - TOY.masks)
    assert np.array_equal(made(PHOTOS, 1 - MASKS, mask_shows="subject").concept.masks, 255 - TOY.masks)
    half = torch.zeros(5, 64, 64)
    half[:, :, 32:] = 1
    assert "Set mask_shows to 'subject'" in refused(PHOTOS, half)
    assert made(PHOTOS, half, mask_shows="subject").concept.masks[0, 0].tolist() == [0] * 32 + [255] * 32
    mixed = MASKS.clone()
    mixed[1] = 1 - mixed[1]
    assert "in mask 1, 3, 4, 5 white seems to be the subject, in mask 2 the background" in refused(PHOTOS, mixed)


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64)])
def test_the_empty_mask_of_an_opaque_photo_is_explained(shape):
    said = refused(torch.rand(1, 128, 96, 3), torch.zeros(shape))
    assert "Load Image gives such a mask for a photo without transparency: disconnect masks" in said


def test_a_white_mask_among_others_lets_the_whole_photo_count():
    """As Subject Photos gives for a photo without a mask."""
    masks = MASKS.clone()
    masks[1] = 1
    for shows in ("auto", "subject"):
        found = made(PHOTOS, masks, mask_shows=shows)
        assert (found.concept.masks[1] == 255).all() and np.array_equal(found.concept.masks[0], TOY.masks[0])
        assert "Mask 2 is white everywhere: all of that photo counts as the subject." in found.said
    assert "mask 2 of 5 covers 100 % of its photo" in refused(PHOTOS, masks, mask_shows="background")
    inverted = 1 - MASKS
    inverted[1] = 1
    assert "mask 2 is white everywhere, and white is the background in the other masks" in refused(PHOTOS, inverted)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        (MASKS[:1], "masks holds 1, references 5: connect one mask for each photo"),
        (torch.nn.functional.interpolate(MASKS[:, None], (64, 32))[:, 0], "masks are 32x64 pixels, references 64x64"),
        (torch.ones(5, 64, 64), "mask 1 of 5 covers 100 % of its photo"),
        (torch.cat([MASKS[:3], torch.zeros(2, 64, 64)]), "mask 4 of 5 shows no subject"),
        (torch.full((5, 64, 64), float("nan")), "masks has the shape"),
        (MASKS[..., None].repeat(1, 1, 1, 3), "masks has the shape"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, said):
    assert said in refused(PHOTOS, masks)


def test_a_mask_without_a_batch_and_one_with_a_channel_are_read():
    for masks in (MASKS[0], MASKS[:1], MASKS[:1, None]):
        assert np.array_equal(made(PHOTOS[:1], masks).concept.masks, TOY.masks[:1])


def test_the_alpha_of_photos_is_their_mask():
    found = made(rgba())
    assert np.array_equal(found.concept.masks, TOY.masks)
    assert (
        found.concept.references[TOY.masks == 0] == 128
    ).all() and "the opaque part is the subject's mask" in found.said
    opaque = made(rgba(masks=torch.ones(5, 64, 64)))
    assert opaque.concept.masks is None and np.array_equal(opaque.concept.references, TOY.references)
    masks = MASKS.clone()
    masks[1] = 1
    assert "Photo 2 is no cut-out, so all of it counts as the subject." in made(rgba(masks=masks)).said
    masks[1] = 0
    assert "photo 2 of references is transparent: only 0 % of it can be seen" in refused(rgba(masks=masks))


def test_connected_masks_win_over_alpha():
    other = torch.zeros(5, 64, 64)
    other[:, 20:40, 20:40] = 1
    found = made(rgba(), other)
    assert (found.concept.masks[:, 20:40, 20:40] == 255).all() and found.concept.masks.mean() < 30
    assert "the connected masks are used, not the alpha" in found.said


def test_grey_photos_are_read_and_others_refused():
    assert made(PHOTOS[..., :1]).concept.references.shape == (5, 64, 64, 3)
    assert "references has the shape [5, 64, 64, 2]" in refused(PHOTOS[..., :2])
    assert "references has pixels that are no numbers" in refused(PHOTOS * float("nan"))
    assert "held_out has the shape [64, 64, 3]" in refused(held_out=PHOTOS[0])


def test_pixels_are_rounded_as_before():
    photos = torch.rand(2, 9, 7, 3, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.1
    expected = (photos.clamp(0, 1) * 255).round().byte().numpy()
    assert np.array_equal(made(photos).concept.references, expected)


@pytest.mark.parametrize("value", ["", "  ", "None", "null", None])
def test_an_empty_word_is_refused_by_widget(value):
    """The host turns null into "None", which once made a "None robot"."""
    for name, words in (("identifier", (value, "robot")), ("class_noun", ("sks", value))):
        assert empty_word(name, value).startswith(f"{name} is empty")
        with pytest.raises(UserError, match=f"^{name} is empty"):
            concept_of(*words, PHOTOS)


def test_one_photo_has_no_scale_and_photos_without_masks_are_whole():
    assert made().said == "5 photos, no masks: fidelity compares photos as a whole."
    assert made(PHOTOS[:1]).said.splitlines()[1].startswith("One reference photo: fidelity has no scale")
