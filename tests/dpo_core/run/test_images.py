"""Tests reading photos and masks: every format, upright, cropped, and invalid files named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.images import SUFFIXES, read_masks, read_photos, read_subject

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def halves(left=RED, right=BLUE, width: int = 40, height: int = 20) -> Image.Image:
    """Left half of one colour, right half of the other."""
    picture = Image.new("RGB", (width, height), left)
    picture.paste(right, (width // 2, 0, width, height))
    return picture


def near(pixel, colour) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= 12)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG", ".JPEG"])
def test_every_format_is_read(tmp_path, suffix):
    halves().save(tmp_path / f"Hündchen 犬{suffix}")
    photos = read_photos(tmp_path, 40, 20)
    assert photos.shape == (1, 20, 40, 3) and photos.dtype == np.uint8
    assert near(photos[0, 10, 5], RED) and near(photos[0, 10, 35], BLUE)


def test_photos_are_sorted_by_name_and_other_files_skipped(tmp_path):
    for name, colour in (("b.png", GREEN), ("a.png", RED), ("c.png", BLUE)):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    # A metadata file that macOS writes beside a file: not an image in spite of its name.
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07")
    assert [tuple(p[0, 0]) for p in read_photos(tmp_path, 8, 8)] == [RED, GREEN, BLUE]


def test_a_wide_photo_is_cropped_in_the_middle_not_squeezed(tmp_path):
    """Thirds red, green, blue, 60 x 20, to a square: only the green middle third remains."""
    picture = Image.new("RGB", (60, 20), RED)
    picture.paste(GREEN, (20, 0, 40, 20))
    picture.paste(BLUE, (40, 0, 60, 20))
    picture.save(tmp_path / "a.png")
    photo = read_photos(tmp_path, 10, 10)[0]
    assert photo.shape == (10, 10, 3) and all(near(p, GREEN) for p in photo[:, 1:-1].reshape(-1, 3))


def test_width_and_height_are_not_swapped(tmp_path):
    halves().save(tmp_path / "a.png")
    assert read_photos(tmp_path, 24, 12).shape == (1, 12, 24, 3)


@pytest.mark.parametrize(("orientation", "corner"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_exif_orientation_turns_the_photo_upright(tmp_path, orientation, corner):
    """Stored with red on the left. 3 is rotated by 180 degrees; 6 is rotated clockwise, which moves left to top."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    size = (40, 20) if orientation in (1, 3) else (20, 40)
    photo = read_photos(tmp_path, *size)[0]
    height, width = photo.shape[:2]
    places = {
        "left": (height // 2, 2),
        "right": (height // 2, width - 3),
        "top": (2, width // 2),
        "bottom": (height - 3, width // 2),
    }
    assert near(photo[places[corner]], RED)
    assert sum(near(photo[p], RED) for p in places.values()) == 1


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    photos = read_photos(tmp_path, 8, 8)
    assert photos.shape == (1, 8, 8, 3) and photos.min() >= 250


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="folder of held-out photos .*none does not exist"):
        read_photos(tmp_path / "none", 8, 8, "held-out photos")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "readme.md").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="holds no reference photos"):
        read_photos(tmp_path, 8, 8)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_corrupt_file_is_named(tmp_path, content):
    halves().save(tmp_path / "a.png")
    bad = tmp_path / "b – 犬.png"
    bad.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(bad)) + " cannot be read as a picture"):
        read_photos(tmp_path, 8, 8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_file_is_read_or_named(tmp_path, suffix):
    """Partly copied files. A cut within the last bytes may leave the image complete."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    refused = 0
    for end in range(0, len(whole) - 64, max(1, len(whole) // 60)):
        path.write_bytes(whole[:end])
        try:
            read_photos(tmp_path, 8, 8)
        except UserError as error:
            refused += str(path) in str(error)
    assert refused >= 50


# --- masks ---


def spot(mode: str, size: tuple[int, int] = (60, 20), box: tuple[int, int, int, int] = (24, 2, 33, 12)) -> Image.Image:
    """White inside the box, black elsewhere. Photo and mask must be cropped alike."""
    picture = Image.new("L", size)
    picture.paste(255, box)
    return picture.convert(mode)


@pytest.fixture
def folders(tmp_path):
    """An empty folder of photos and one of masks."""
    made = tmp_path / "fotos", tmp_path / "masken ß"
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.parametrize("size", [(60, 20), (10, 10), (30, 10), (40, 40), (16, 24)])
def test_mask_is_cropped_like_its_photo(folders, size):
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L").save(masks / "a.png")
    mask = read_masks(masks, photos, *size)
    assert mask.shape == (1, size[1], size[0]) and mask.dtype == np.uint8
    assert mask.max() > 200 and (mask == 0).any()
    np.testing.assert_array_equal(mask, read_photos(photos, *size)[..., 0])


@pytest.mark.parametrize("tagged", ["the photo", "both"])
@pytest.mark.parametrize(
    ("orientation", "undo"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
def test_mask_matches_the_upright_photo(folders, orientation, undo, tagged):
    """A phone stores photos rotated with a tag; the mask was painted on the upright photo, or carries the same tag."""
    photos, masks = folders
    upright, exif = spot("L", (20, 60), (2, 24, 12, 33)), Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(undo)
    stored.convert("RGB").save(photos / "a.png", exif=exif)
    stored.save(masks / "a.png", exif=exif) if tagged == "both" else upright.save(masks / "a.png")
    photo, mask = read_photos(photos, 20, 30)[0], read_masks(masks, photos, 20, 30)[0]
    np.testing.assert_array_equal(mask, photo[..., 0])
    np.testing.assert_array_equal(mask, np.asarray(upright)[15:45])


def test_masks_are_matched_by_stem_in_the_order_of_the_photos(folders):
    photos, masks = folders
    for i, (photo, mask) in enumerate((("b.jpg", "b.png"), ("a ü.png", "a ü.bmp"), ("c.d.webp", "c.d.png"))):
        Image.new("RGB", (20, 8)).save(photos / photo)
        spot("L", (20, 8), (6 * i, 0, 6 * i + 6, 8)).save(masks / mask)
    spot("L").save(masks / "0 of no photo.png")
    found = read_masks(masks, photos, 20, 8)
    assert [int(m[0].argmax()) for m in found] == [6, 0, 12]


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA"])
def test_a_mask_of_any_mode_is_black_and_white(folders, mode):
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L").convert(mode).save(masks / "a.png")
    np.testing.assert_array_equal(read_masks(masks, photos, 60, 20)[0], np.asarray(spot("L")))


def test_a_photo_without_a_mask_is_named(folders):
    photos, masks = folders
    for name in ("a.png", "b.png"):
        spot("RGB").save(photos / name)
    with pytest.raises(UserError, match="the folder .*masken ß holds no masks"):
        read_masks(masks, photos, 8, 8)
    spot("L").save(masks / "a.png")
    with pytest.raises(
        UserError, match=r"^b\.png has no mask in .*masken ß\. Give every photo a mask of the same name \(b\.png\), or"
    ):
        read_masks(masks, photos, 8, 8)
    with pytest.raises(UserError, match="folder of masks .*none does not exist"):
        read_masks(masks / "none", photos, 8, 8)


def test_a_mask_of_another_size_is_refused_with_both_sizes(folders):
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L", (20, 60)).save(masks / "a.png")
    with pytest.raises(UserError, match=r"a\.png is 20x60 pixels, its photo 60x20: make them the same size"):
        read_masks(masks, photos, 8, 8)


@pytest.mark.parametrize("grey", [0, 1, 127])
def test_a_mask_without_white_is_named(folders, grey):
    """Labelling tools write 1 for "subject": it looks black, and must not count as background without notice."""
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L").point(lambda value: min(value, grey)).save(masks / "a.png")
    with pytest.raises(UserError, match=r"a\.png shows no subject: no pixel is white\. Paint the subject white"):
        read_masks(masks, photos, 60, 20)


def test_subject_lost_by_the_crop_is_reported_as_such(folders):
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L", box=(0, 0, 10, 20)).save(masks / "a.png")
    with pytest.raises(
        UserError, match=r"a\.png: no part of the subject is left when photos are cropped to 20x20\. Crop photo"
    ):
        read_masks(masks, photos, 20, 20)


@pytest.mark.parametrize("bad", ["photo", "mask"])
@pytest.mark.parametrize("cut", [0, 20, 50])
def test_an_unreadable_file_of_either_folder_is_named(folders, bad, cut):
    photos, masks = folders
    spot("RGB").save(photos / "a.png")
    spot("L").save(masks / "a.png")
    path = (photos if bad == "photo" else masks) / "a.png"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=re.escape(str(path)) + " cannot be read as a picture"):
        read_masks(masks, photos, 8, 8)


def test_transparent_image_is_a_mask_and_the_photos_folder_is_refused(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    for folder in (photos, masks):
        folder.mkdir()
    Image.new("RGB", (8, 8), GREEN).save(photos / "a.png")
    cut_out = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    cut_out.paste((10, 10, 10, 255), (0, 0, 4, 8))  # dark, but there
    cut_out.save(masks / "a.png")
    assert read_masks(masks, photos, 8, 8)[0, 0].tolist() == [255] * 4 + [0] * 4
    opaque = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    opaque.paste((255, 255, 255, 255), (0, 0, 8, 4))
    opaque.save(masks / "a.png")
    assert read_masks(masks, photos, 8, 8)[0, :, 0].tolist() == [255] * 4 + [0] * 4
    with pytest.raises(UserError, match="a photo cannot be its own mask"):
        read_masks(photos, photos, 8, 8)


# --- photos and masks together ---


def cut_out(path, box=(10, 10, 30, 30), hidden=(255, 0, 255), mode: str = "RGBA") -> None:
    """A photo of 40 x 40 pixels, opaque and dark in `box`, with a hidden background."""
    picture = Image.new("RGBA", (40, 40), (*hidden, 0))
    picture.paste((20, 20, 20, 255), box)
    picture.convert(mode).save(path)


def subject(*given):
    """read_subject at 40 x 40, and what it said."""
    said: list[str] = []
    photos, masks = read_subject(*given, 40, 40, said.append)
    return photos, masks, said


def test_cut_outs_are_their_own_masks(tmp_path):
    cut_out(tmp_path / "a.png")
    cut_out(tmp_path / "b.png", (5, 5, 25, 35))
    photos, masks, said = subject(tmp_path, None)
    assert [int((m == 255).sum()) for m in masks] == [400, 600] and set(np.unique(masks)) == {0, 255}
    assert photos[0, 0, 0].tolist() == [128] * 3 and photos[0, 20, 20].tolist() == [20] * 3
    assert said == [
        "a.png, b.png: cut out, so the opaque part is the subject's mask; the rest is grey",
        "masks cover 25 % of a.png, 38 % of b.png",
    ]


def test_a_photo_among_cut_outs_counts_as_a_whole(tmp_path):
    cut_out(tmp_path / "a.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.jpg")
    _, masks, said = subject(tmp_path, None)
    assert (masks[1] == 255).all() and said[-1].startswith("b.jpg: no cut-out among cut-outs")


def test_given_masks_win_over_transparency(folders):
    photos, masks = folders
    cut_out(photos / "a.png")
    spot("L", (40, 40), (0, 0, 20, 20)).save(masks / "a.png")
    pixels, found, said = subject(photos, masks)
    assert (
        (found[0, :20, :20] == 255).all() and found[0, 25:, 25:].max() == 0 and pixels[0, 39, 39].tolist() == [128] * 3
    )
    assert any(line.startswith("a.png: transparent, but the masks of ") for line in said)
    assert said[-1] == "masks cover 25 % of a.png"


def test_transparent_and_hollow_photos_are_refused_and_rounded_corners_are_not(tmp_path):
    cut_out(tmp_path / "a.png", (0, 0, 3, 3))
    with pytest.raises(UserError, match=r"a\.png is transparent: only 0\.56 % of it can be seen"):
        subject(tmp_path, None)
    hollow = Image.new("RGBA", (40, 40), (9, 9, 9, 255))
    hollow.paste((0, 0, 0, 0), (10, 10, 30, 30))
    hollow.save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is transparent in the middle.*the subject seems to be cut away"):
        subject(tmp_path, None)
    cornered = Image.new("RGBA", (40, 40), (9, 9, 9, 255))
    cornered.putpixel((0, 0), (0, 0, 0, 0))
    cornered.save(tmp_path / "a.png")
    _, masks, said = subject(tmp_path, None)
    assert masks is None and "no cut-out" in said[0]


def test_masks_beside_the_photos_are_used(tmp_path):
    """OneTrainer's and other trainers' names; a folder of masks that is given wins."""
    for name, colour in (("a", RED), ("b", BLUE)):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.jpg")
    spot("L", (40, 40), (10, 10, 30, 30)).save(tmp_path / "a-masklabel.png")
    with pytest.raises(UserError, match=r"^b\.jpg has no mask beside it, but other photos have \(a-masklabel\.png\)"):
        subject(tmp_path, None)
    spot("L", (40, 40), (10, 10, 20, 30)).save(tmp_path / "b_mask.png")
    for given in (None, tmp_path):
        photos, masks, said = subject(tmp_path, given)
        assert len(photos) == 2 and [int((m == 255).sum()) for m in masks] == [400, 200]
        assert said == ["masks cover 25 % of a.jpg, 12 % of b.jpg"]
    other = tmp_path / "other"
    other.mkdir()
    for name in ("a-masklabel", "b-masklabel"):
        spot("L", (40, 40), (0, 0, 10, 10)).save(other / f"{name}.png")
    _, masks, said = subject(tmp_path, other)
    assert [int((m == 255).sum()) for m in masks] == [100, 100]
    assert any("a-masklabel.png, b_mask.png: masks beside the photos, not used" in line for line in said)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((40, 40), np.uint8), r"a\.png shows no subject"),
        (np.full((40, 40), 255, np.uint8), r"a\.png covers 100 % of its photo, so it separates nothing"),
        (np.pad(np.full((3, 3), 255, np.uint8), ((0, 37), (0, 37))), r"a\.png covers only 0\.56 % of its photo"),
        (
            np.pad(np.zeros((20, 20), np.uint8), 10, constant_values=255),
            r"a\.png seems to be inverted.*invert the mask",
        ),
        (np.ones((40, 40), np.uint16), r"a\.png shows no subject"),
    ],
)
def test_absurd_and_inverted_masks_are_refused_by_file(folders, values, message):
    photos, masks = folders
    Image.new("RGB", (40, 40)).save(photos / "a.png")
    Image.fromarray(values).save(masks / "a.png")
    with pytest.raises(UserError, match=message):
        subject(photos, masks)


def test_a_soft_16_bit_mask_is_scaled(folders):
    """32896 is 128 of 255, 257 is 1: clipped to 8 bits both would be white."""
    photos, masks = folders
    Image.new("RGB", (40, 40)).save(photos / "a.png")
    values = np.full((40, 40), 257, np.uint16)
    values[10:30, 10:30], values[10:20, 10:20] = 32896, 65535
    Image.fromarray(values).save(masks / "a.png")
    _, found, said = subject(photos, masks)
    assert found[0, [0, 15, 25], [0, 15, 25]].tolist() == [1, 255, 128] and said == ["masks cover 25 % of a.png"]


def test_an_inverted_bust_is_said(folders):
    photos, masks = folders
    Image.new("RGB", (40, 40)).save(photos / "a.png")
    values = np.full((40, 40), 255, np.uint8)
    values[10:, 8:32] = 0
    Image.fromarray(values).save(masks / "a.png")
    assert subject(photos, masks)[2][0] == (
        "a.png may be inverted: its white touches most of the border. White must be the subject: invert the mask."
    )


def test_skipped_files_are_said_on_the_log(tmp_path, caplog):
    halves().save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    read_photos(tmp_path, 8, 8)
    assert caplog.messages == ["using 1 photo, skipped: notes.txt (no picture)"]
