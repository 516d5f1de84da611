"""Tests photos of a subject: the square by hand, masks that go with it, and what is skipped or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from subject_files import RED, scene, write_subject

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.report.plots.photo_sheet import CELL, drawable, outline, photo_sheet, seen, short, words
from dreambooth_dpo.dpo_core.run.photo_folder import chosen, look
from dreambooth_dpo.dpo_core.run.subject_photos import padded, square, subject_photos
from dreambooth_dpo.dpo_core.settings import PhotoSettings

SMALL = PhotoSettings(size=64)


def read(folder: Path, **given):
    return subject_photos(look(folder, "reference photos"), PhotoSettings(**{"size": 64, **given}))


def boxed(size: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask with a white box: left, top, right, bottom."""
    mask = np.zeros(size[::-1], np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    return mask


# --- the square ---


@pytest.mark.parametrize(
    ("size", "box", "least", "expected"),
    [
        ((400, 300), None, 64, (50, 0, 350, 300)),  # the centre
        ((300, 401), None, 64, (0, 50, 300, 350)),
        ((400, 300), (200, 100, 280, 200), 64, (177, 87, 302, 212)),  # 1.25 x 100 = 125 around (240, 150)
        ((400, 300), (300, 100, 380, 200), 64, (275, 87, 400, 212)),  # the same, moved back into the photo
        ((400, 300), (0, 0, 40, 40), 64, (0, 0, 64, 64)),  # at a corner, and never below `least`
        ((400, 300), (180, 130, 220, 170), 512, (50, 0, 350, 300)),  # the photo has no more
        ((400, 300), (20, 100, 380, 200), 64, (50, 0, 350, 300)),  # longer than the photo is high
    ],
)
def test_the_square(size, box, least, expected):
    left, top, right, bottom = square(size, None if box is None else boxed(size, box), least)
    assert (left, top, right, bottom) == expected and right - left == bottom - top


def test_a_mask_without_white_is_as_none():
    assert square((30, 20), np.zeros((20, 30), np.uint8), 8) == (5, 0, 25, 20)


def test_padding_keeps_all_of_a_photo_on_grey():
    pixels = padded(Image.new("RGB", (40, 20), (255, 0, 0)), 40, 128)
    assert (pixels[:10] == 128).all() and (pixels[30:] == 128).all() and (pixels[10:30] == (255, 0, 0)).all()
    mask = padded(Image.new("L", (20, 40), 255), 40, 0)
    assert mask[:, 10:30].min() == 255 and mask[:, :10].max() == mask[:, 30:].max() == 0


# --- a folder of a user ---


def test_photos_become_squares_with_their_masks(tmp_path):
    write_subject(tmp_path)
    found = read(tmp_path, held_out=1)
    assert [p.name for p in found.photos] == ["Hündchen 犬.png", "a.png", "b cut out.png", "c.jpg"]
    assert [p.source for p in found.photos] == ["", "a_mask.png", "alpha", ""]
    assert [p.held_out for p in found.photos] == [False, False, False, True]
    assert [p.whole for p in found.photos] == [(100, 100), (240, 160), (180, 280), (96, 128)], "c is upright"
    assert found.references.shape == (3, 64, 64, 3) and found.held_out.shape == (1, 64, 64, 3)
    assert found.masks.shape == (3, 64, 64) and (found.masks[0] == 255).all()
    # 60 x 80 in a square of 100 is 0.48 of it as a box, and pi / 4 of that as a disc.
    assert found.masks[1].mean() / 255 == pytest.approx(0.48 * np.pi / 4, abs=0.02)
    for i in (1, 2):
        shown = found.photos[i].pixels[found.photos[i].mask > 250]
        assert np.abs(shown.astype(int) - RED).max(axis=1).mean() < 12, "mask and photo are cut alike"
    assert (found.photos[2].pixels[found.photos[2].mask == 0] == 128).mean() > 0.9


def test_every_file_that_is_not_used_is_named_with_its_reason(tmp_path):
    write_subject(tmp_path)
    said = dict(read(tmp_path).skipped)
    assert said == {
        "clip.mp4": "a film, no picture",
        "notes.txt": "no picture",
        "page.jpg": "cannot be read: it is a web page, not a picture",
        "tiny.png": "too small: 40x30 pixels, the shorter side must have 64 or more",
        "zwilling.png": "the same file as a.png",
    }


def test_without_masks_there_are_none(tmp_path):
    write_subject(tmp_path)
    found = subject_photos(chosen([tmp_path / "c.jpg", tmp_path / "Hündchen 犬.png"]), SMALL)
    assert found.masks is None and found.held_out is None and len(found.references) == 2


def test_a_subject_that_is_cut_off_is_said_and_one_that_is_gone_refused(tmp_path):
    photo, mask = scene((240, 160), (180, 40, 230, 120))
    photo.save(tmp_path / "a.png")
    mask.save(tmp_path / "a.mask.png")
    (note,) = read(tmp_path, crop="centre").notes  # the centre ends at x = 200: 0.63 of the disc is beyond it
    assert note.startswith("a.png: 6") and "is outside the square. Set crop to subject or pad" in note
    assert read(tmp_path).notes == () and read(tmp_path, crop="pad").notes == ()
    photo, mask = scene((300, 100), (220, 20, 280, 80))
    photo.save(tmp_path / "a.png")
    mask.save(tmp_path / "a.mask.png")
    with pytest.raises(UserError, match="no part of the subject is left in the square .crop is centre."):
        read(tmp_path, crop="centre")


def test_a_subject_that_fills_its_square_counts_as_a_whole_photo(tmp_path):
    photo, _ = scene((160, 80), (0, 0, 20, 20))
    photo.save(tmp_path / "a.png")
    Image.fromarray(boxed((160, 80), (30, 0, 130, 80))).save(tmp_path / "a_mask.png")
    found = read(tmp_path, crop="centre")
    assert found.masks is None and "a.png: the subject fills the square, so the whole square counts" in found.notes


def test_small_photos_are_enlarged_and_that_is_said(tmp_path):
    write_subject(tmp_path)
    (note,) = read(tmp_path, size=152).notes
    assert note.startswith("enlarged to 152 pixels, which adds no detail: Hündchen 犬.png (100), c.jpg (96).")


@pytest.mark.parametrize(
    ("held_out", "remedy"), [(4, "Set held_out to 1, or any number up to 3"), (100, "Set held_out to 1, or any")]
)
def test_one_reference_must_remain(tmp_path, held_out, remedy):
    write_subject(tmp_path)
    with pytest.raises(UserError, match=f"held_out is {held_out}, but there are 4 photos, .*{remedy}"):
        read(tmp_path, held_out=held_out)


def test_where_nothing_is_left_each_file_is_named(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"none of the files can be used .*: a.png \(too small: 20x20"):
        read(tmp_path)


def test_a_mask_that_does_not_fit_is_refused_as_on_the_command_line(tmp_path):
    photo, mask = scene((240, 160), (160, 40, 220, 120))
    photo.save(tmp_path / "a.png")
    mask.resize((120, 80)).save(tmp_path / "a_mask.png")
    with pytest.raises(UserError, match="a_mask.png is 120x80 pixels, its photo 240x160"):
        read(tmp_path)


# --- files that were named one by one ---


def test_masks_are_found_among_files_of_several_folders(tmp_path):
    """A mask belongs to a photo of its own folder, or of the one above a folder of masks."""
    names = ["x/a.png", "x/a_mask.png", "y/a.png", "y/masks/a.png", "z/a.png", "z/masks/b.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = chosen([tmp_path / name for name in [*names, "x/a.png"]])
    assert [p.relative_to(tmp_path).as_posix() for p in found.photos] == [
        "x/a.png", "y/a.png", "z/a.png", "z/masks/b.png",
    ]  # fmt: skip
    pairs = {p.parent.name: m.relative_to(tmp_path).as_posix() for p, m in found.masks.items()}
    assert pairs == {"x": "x/a_mask.png", "y": "y/masks/a.png"}


# --- the sheet ---


def test_the_outline_is_the_edge_and_not_the_rim_of_the_picture():
    inside = np.zeros((9, 9), bool)
    inside[:, :4] = True
    assert outline(inside, 1).any(axis=0).tolist() == [False] * 3 + [True] * 2 + [False] * 4
    assert not outline(np.ones((9, 9), bool), 2).any()


def test_the_sheet_shows_every_photo_and_says_what_was_done(tmp_path):
    write_subject(tmp_path)
    found = read(tmp_path, held_out=1)
    sheet = photo_sheet(found)
    assert sheet.width == 4 * (CELL + 16)
    assert words(found.photos[1], "subject") == ("240 x 160 px", "101 px around the subject", "mask: subject 38 %")
    assert words(found.photos[0], "subject") == ("100 x 100 px", "all of it, to 64", "no mask: all of it counts")
    assert words(found.photos[3], "pad")[1] == "all of it, padded to 64"
    masked = np.asarray(seen(found.photos[1]))
    assert (masked == (255, 176, 0)).all(axis=-1).sum() > 500, "the outline of the mask"


def test_names_are_shortened_in_the_middle_and_foreign_letters_known():
    class Letters:
        def getlength(self, text: str) -> int:
            return 10 * len(text)

    assert short("IMG_2026.png", Letters(), 120) == "IMG_2026.png"
    assert short("IMG_20260101_1234.jpg", Letters(), 110) == "IMG_2…4.jpg"
    assert drawable("Hündchen.png") and not drawable("犬.png")
