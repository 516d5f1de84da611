"""Tests opening pictures: bit depths, transparency, animations, orientation, and reasons of failure."""

from __future__ import annotations

import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, features

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run import picture_file
from dreambooth_dpo.dpo_core.run.picture_file import open_picture

RAMP = np.array([[0, 257, 128 * 257, 65535]], np.uint16)


def deep_png(path, channels: np.ndarray) -> None:
    """Write a 16-bit PNG of uint16 [h, w, c] (c: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA), which Pillow cannot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, count = channels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def deep_tiff(path, channels: np.ndarray) -> None:
    """Write an uncompressed 16-bit RGB TIFF of uint16 [h, w, 3]."""
    height, width, count = channels.shape
    data = channels.astype("<u2").tobytes()
    after = 8 + len(data)
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, count, after + 2 + 9 * 12 + 4), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, count), (278, 3, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    listed = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0" * 4
    path.write_bytes(b"II*\0" + struct.pack("<I", after) + data + listed + struct.pack("<HHH", 16, 16, 16))


def values(path) -> list[int]:
    """The first row's red."""
    return np.asarray(open_picture(path).rgb)[0, :, 0].tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    """257 is 1 of 255, 128 * 257 is 128: clipping would give 255 for both."""
    Image.fromarray(RAMP).save(tmp_path / name)
    assert values(tmp_path / name) == [0, 1, 128, 255]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_16_bit_png_of_any_channels(tmp_path, count):
    channels = np.repeat(RAMP[..., None], count, axis=-1)
    if count in (2, 4):
        channels[..., -1] = 65535
    deep_png(tmp_path / "a.png", channels)
    assert values(tmp_path / "a.png") == [0, 1, 128, 255]


def test_16_bit_rgb_tiff(tmp_path):
    deep_tiff(tmp_path / "a.tif", np.repeat(RAMP[..., None], 3, axis=-1))
    assert values(tmp_path / "a.tif") == [0, 1, 128, 255]


def test_numbers_of_a_known_range_are_scaled_and_others_refused(tmp_path):
    for i, (row, expected) in enumerate((([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 128.0, 255.0], [0, 128, 255]))):
        Image.fromarray(np.array([row], np.float32)).save(tmp_path / f"{i}.tif")
        assert values(tmp_path / f"{i}.tif") == expected
    for i, row in enumerate(([0.0, 1e9], [-1.0, 1.0], [float("nan"), 1.0])):
        Image.fromarray(np.array([row], np.float32)).save(tmp_path / f"bad {i}.tif")
        with pytest.raises(UserError, match=r"bad .\.tif cannot be read as a picture \(its values reach from"):
            open_picture(tmp_path / f"bad {i}.tif")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_hidden_background_of_a_cut_out_is_grey(tmp_path, mode):
    """White that is transparent, as background removers leave it, must not be seen; the opacity is kept."""
    cut = Image.new("RGBA", (4, 1), (255, 255, 255, 0))
    cut.paste((0, 0, 0, 255), (0, 0, 2, 1))
    picture = cut.convert(mode) if mode != "P" else cut.quantize(4)
    picture.save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert np.asarray(opened.rgb)[0].tolist() == [[0, 0, 0]] * 2 + [[128, 128, 128]] * 2
    assert np.asarray(opened.opacity)[0].tolist() == [255, 255, 0, 0]


def test_opaque_rgba_is_no_cut_out_and_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    opened = open_picture(tmp_path / "a.png")
    assert opened.opacity is None and np.array_equal(np.asarray(opened.rgb), pixels[..., :3])


def test_orientation_turns_the_opacity_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored with its left at the top
    cut = Image.new("RGBA", (8, 4), (9, 9, 9, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 4, 4))
    cut.save(tmp_path / "a.png", exif=exif)
    opened = open_picture(tmp_path / "a.png")
    assert opened.rgb.size == (4, 8) and np.asarray(opened.opacity)[:, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_first_frame_is_used_and_said(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
    opened = open_picture(tmp_path / name)
    assert np.asarray(opened.rgb)[0, 0].tolist() == [255, 0, 0]
    assert opened.notes == (f"{name} has 3 frames: the first is used",)


def test_a_phones_file_of_several_versions_is_one_photo(tmp_path):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pictures[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=pictures[1:])
    assert open_picture(tmp_path / "a.jpg").notes == ()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC picture, which needs pillow-heif"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "it is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "it is a web page"),
    ],
)
def test_reasons_that_pillow_does_not_give(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(picture_file, "heif", lambda: False)
    (tmp_path / "IMG_1.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"IMG_1\.jpg cannot be read as a picture \({reason}"):
        open_picture(tmp_path / "IMG_1.jpg")


def test_heic_is_read_where_pillow_heif_is(tmp_path):
    module = pytest.importorskip("pillow_heif")
    module.register_heif_opener()
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "a.heic")
    assert np.abs(np.asarray(open_picture(tmp_path / "a.heic").rgb).astype(int)[9, 9] - (200, 10, 10)).max() < 12


def test_pillow_heif_is_registered_once_if_it_is_installed(monkeypatch):
    """A stand-in for pillow-heif, which is not a requirement."""
    calls = []
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=lambda: calls.append(1)))
    picture_file.heif.cache_clear()
    assert picture_file.heif() and picture_file.heif() and calls == [1]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    picture_file.heif.cache_clear()
    assert not picture_file.heif()
    picture_file.heif.cache_clear()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path):
    Image.new("RGB", (32, 32), (10, 200, 10)).save(tmp_path / "a.avif")
    assert (
        picture_file.avif()
        and np.abs(np.asarray(open_picture(tmp_path / "a.avif").rgb)[0, 0].astype(int) - (10, 200, 10)).max() < 12
    )
