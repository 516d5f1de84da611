"""A user's photos: every format, upright, cropped, and bad files named."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.images import SUFFIXES, read_photos

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


def test_photos_come_by_name_and_other_files_are_left_out(tmp_path):
    for name, colour in (("b.png", GREEN), ("a.png", RED), ("c.png", BLUE)):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    # What macOS lays beside a file on a foreign disk: no picture in spite of its name.
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07")
    assert [tuple(p[0, 0]) for p in read_photos(tmp_path, 8, 8)] == [RED, GREEN, BLUE]


def test_a_wide_photo_is_cropped_in_the_middle_not_squeezed(tmp_path):
    """Thirds red, green, blue, 60 x 20, to a square: the green middle third is all that stays."""
    picture = Image.new("RGB", (60, 20), RED)
    picture.paste(GREEN, (20, 0, 40, 20))
    picture.paste(BLUE, (40, 0, 60, 20))
    picture.save(tmp_path / "a.png")
    photo = read_photos(tmp_path, 10, 10)[0]
    assert photo.shape == (10, 10, 3) and all(near(p, GREEN) for p in photo[:, 1:-1].reshape(-1, 3))


def test_width_and_height_are_not_mixed_up(tmp_path):
    halves().save(tmp_path / "a.png")
    assert read_photos(tmp_path, 24, 12).shape == (1, 12, 24, 3)


@pytest.mark.parametrize(("orientation", "corner"), [(1, "left"), (3, "right"), (6, "top"), (8, "bottom")])
def test_exif_orientation_turns_the_photo_upright(tmp_path, orientation, corner):
    """Stored with red on the left. 3 is turned by 180 degrees; 6 must be turned clockwise, which brings left to the top; 8 the other way."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    size = (40, 20) if orientation in (1, 3) else (20, 40)
    photo = read_photos(tmp_path, *size)[0]
    height, width = photo.shape[:2]
    places = {"left": (height // 2, 2), "right": (height // 2, width - 3), "top": (2, width // 2), "bottom": (height - 3, width // 2)}
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
def test_a_file_cut_off_anywhere_is_read_or_named_and_never_a_traceback(tmp_path, suffix):
    """Half-copied files. A cut within the last bytes may leave the picture whole."""
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
