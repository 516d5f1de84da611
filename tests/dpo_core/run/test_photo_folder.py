"""Tests which files of a folder are photos, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run import photo_folder
from dreambooth_dpo.dpo_core.run.photo_folder import by_reason, look

WHAT = "reference photos"


@pytest.fixture(autouse=True)
def no_heif(monkeypatch):
    """Whether pillow-heif and AVIF are there is no matter of this machine."""
    monkeypatch.setattr(photo_folder, "heif", lambda: False)
    monkeypatch.setattr(photo_folder, "avif", lambda: False)


def photo(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (grey, 20, 30)).save(path)
    return path


def photos(folder: Path, *names: str) -> None:
    for i, name in enumerate(names):
        photo(folder / name, i)


def names(found) -> list[str]:
    return [p.name for p in found.photos]


def test_a_folder_of_photos_says_nothing(tmp_path):
    photos(tmp_path, "b.png", "a.jpg", "c.JPEG", "d.jfif", "e.tif", "f.gif", "g.webp", "h.bmp")
    found = look(tmp_path, WHAT)
    assert names(found) == ["a.jpg", "b.png", "c.JPEG", "d.jfif", "e.tif", "f.gif", "g.webp", "h.bmp"]
    assert found.said(WHAT) == [] and found.masks == {}


def test_other_files_are_named_with_reasons(tmp_path):
    photos(tmp_path, "p0.png", "p1.png", "p2.png", "p3.png", "p4.png")
    other = ("a.heic", "b.avif", "c.cr2", "d.psd", "e.mp4", "notes.txt", "Thumbs.db", ".DS_Store", "p1.txt", "x.npz")
    for name in other:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".IMG_2.heic.icloud").write_bytes(b"x")
    found = look(tmp_path, WHAT)
    assert len(found.photos) == 5 and {n for n, _ in found.skipped} == {*other, ".IMG_2.heic.icloud"}
    (line,) = found.said(WHAT)
    assert line.startswith("using 5 photos, skipped: ")
    for part in (
        ".IMG_2.heic.icloud (still in iCloud: download it)",
        "a.heic (needs pillow-heif: pip install pillow-heif, or save as JPG)",
        "b.avif (needs Pillow 11.3 or newer, or pillow-avif-plugin)",
        "c.cr2 (a camera's raw file: save it as JPG or PNG)",
        "d.psd (a format that is not read: save it as JPG or PNG)",
        "e.mp4 (a film, no picture)",
        "Thumbs.db (a file of the operating system)",
        "notes.txt, x.npz (no picture)",
        "p1.txt (a caption: prompts come from the prompt file)",
    ):
        assert part in line, part


def test_heic_and_avif_are_photos_where_they_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_folder, "heif", lambda: True)
    monkeypatch.setattr(photo_folder, "avif", lambda: True)
    for name in ("a.HEIC", "b.heif", "c.avif"):
        (tmp_path / name).write_bytes(name.encode())
    assert names(look(tmp_path, WHAT)) == ["a.HEIC", "b.heif", "c.avif"]


def test_a_picture_without_its_suffix_is_named(tmp_path):
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "b.png").rename(tmp_path / "IMG_1.download")
    assert look(tmp_path, WHAT).skipped == (
        ("IMG_1.download", "a PNG picture without its suffix: rename it to IMG_1.png"),
    )


@pytest.mark.parametrize("name", ["a-masklabel.png", "a_mask.png", "a-mask.png", "a.mask.png", "a_matte.PNG"])
def test_a_mask_beside_its_photo_is_a_mask(tmp_path, name):
    photos(tmp_path, "a.jpg", name)
    found = look(tmp_path, WHAT)
    assert names(found) == ["a.jpg"] and found.masks == {tmp_path / "a.jpg": tmp_path / name}


@pytest.mark.parametrize("name", ["masks", "mask", "_masks"])
def test_a_folder_of_masks_within(tmp_path, name):
    photos(tmp_path, "a.jpg")
    photos(tmp_path / name, "a.png", "b.png")
    found = look(tmp_path, WHAT)
    assert found.masks == {tmp_path / "a.jpg": tmp_path / name / "a.png"} and not found.skipped


def test_masks_without_a_photo_and_conditioning_pictures(tmp_path):
    """A photo of a mask is a photo, unless a photo of the rest of its name is there."""
    photos(tmp_path, "a.png", "a-condlabel.png", "b-masklabel.png", "venetian_mask.png", "mask.png")
    found = look(tmp_path, WHAT)
    assert names(found) == ["a.png", "mask.png", "venetian_mask.png"]
    assert [n for n, _ in found.skipped] == ["a-condlabel.png", "b-masklabel.png"]


def test_kohyas_folder_of_repeats_is_entered(tmp_path):
    photos(tmp_path / "10_sks robot", "a.png", "b.png")
    (tmp_path / "10_sks robot" / "a.txt").write_text("a sks robot", encoding="utf-8")
    found = look(tmp_path, WHAT)
    assert names(found) == ["a.png", "b.png"]
    assert found.said(WHAT) == [
        "using 2 photos, skipped: a.txt (a caption: prompts come from the prompt file)",
        "reference photos are taken from 10_sks robot (a folder as kohya's trainers use it; its repeats do not count "
        "here)",
    ]


def test_folders_that_cannot_be_chosen_are_refused_by_name(tmp_path):
    photos(tmp_path / "10_sks robot", "a.png")
    photos(tmp_path / "1_robot", "a.png", "b.png")
    with pytest.raises(UserError, match=r"several folders of pictures: 10_sks robot \(1\), 1_robot \(2\)\. Give one"):
        look(tmp_path, WHAT)
    photos(tmp_path / "other" / "img" / "best", "a.png")
    with pytest.raises(UserError, match=r"folders within hold pictures: .*best \(1\)\. Give one of those"):
        look(tmp_path / "other", WHAT)


def test_folders_beside_photos_are_named(tmp_path):
    photos(tmp_path, "a.png")
    photos(tmp_path / "10_sks robot", "b.png", "c.png")
    (tmp_path / "logs").mkdir()
    assert look(tmp_path, WHAT).said(WHAT) == [
        "using 1 photo, skipped: 10_sks robot/ (a folder of 2 pictures: folders within are not read), logs/ (a folder)"
    ]


def test_no_photo_that_can_be_read(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds no reference photos\. There is: a\.heic \(needs pillow-heif"):
        look(tmp_path, WHAT)
    with pytest.raises(UserError, match="is a file, not a folder"):
        look(tmp_path / "a.heic", WHAT)


def test_equal_files_are_said_and_count(tmp_path):
    photos(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    found = look(tmp_path, WHAT)
    assert len(found.photos) == 3
    assert found.said(WHAT) == ["b.png is the same file as a.png: it counts twice, and adds nothing"]


def test_many_files_of_one_reason_are_counted():
    files = [(f"{i}.txt", "no picture") for i in range(9)]
    assert by_reason(files) == "0.txt, 1.txt, 2.txt and 6 more (no picture)"
