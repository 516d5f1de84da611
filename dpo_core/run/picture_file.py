"""Opens one picture file: upright, 8 bits per channel, its transparency apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..masks import GREY

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

HEIF = (".heic", ".heif", ".hif")
_SEVERAL = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
"""Formats whose further frames are an animation or pages; in others (MPO of phones) they are versions of one photo."""


@dataclass(frozen=True)
class Opened:
    """A picture as RGB on grey, its opacity (L, or None where it has no transparent part), and what was changed."""

    rgb: Picture
    opacity: Picture | None
    notes: tuple[str, ...] = ()


class UnreadablePicture(UserError):
    """A file that is no picture. `reason`: why, without file and remedy."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file} cannot be read as a picture ({reason}). Replace it or take it out of the folder.")
        self.reason = reason


@cache
def heif() -> bool:
    """Whether HEIC files can be read: pillow-heif is installed. Its reader is then registered."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@cache
def avif() -> bool:
    """Whether AVIF files can be read: by Pillow, or by a plugin of it."""
    from PIL import features

    if features.check("avif"):
        return True
    try:
        import pillow_avif  # noqa: F401  registers itself
    except ImportError:
        return False
    return True


def open_picture(file: Path) -> Opened:
    """Read the first frame of a file. Raises UnreadablePicture, naming file and reason, when it cannot be read."""
    from PIL import Image, ImageOps

    heif(), avif()
    try:
        with Image.open(file) as image:
            frames = getattr(image, "n_frames", 1) if image.format in _SEVERAL else 1
            notes = (f"{file.name} has {frames} frames: the first is used",) if frames > 1 else ()
            upright = eight_bits(ImageOps.exif_transpose(image), image.format)
            if not upright.has_transparency_data:
                return Opened(upright.convert("RGB"), None, notes)
            cut = upright.convert("RGBA")
            opacity = cut.getchannel("A")
            if opacity.getextrema()[0] == 255:
                return Opened(cut.convert("RGB"), None, notes)
            plane = Image.new("RGBA", cut.size, (GREY, GREY, GREY, 255))
            return Opened(Image.alpha_composite(plane, cut).convert("RGB"), opacity, notes)
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(file, _why(file) or str(error)) from error


def eight_bits(picture: Picture, form: str | None = None) -> Picture:
    """A picture of more than 8 bits per channel, scaled to 8; others as they are.

    Pillow's own conversion would clip 16-bit grey, which makes it white. Raises ValueError for values of unknown range.
    """
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture).astype(np.float64)
    top = values.max(initial=0)
    if not np.isfinite(values).all() or values.min(initial=0) < 0 or top > 65535:
        raise ValueError(f"its values reach from {values.min():g} to {top:g}: save it with 8 or 16 bits per channel")
    if picture.mode == "F":
        scale = 255 if top <= 1 else 1 if top <= 255 else 255 / 65535
    else:
        # Older Pillows give 16-bit PNG files as 32-bit integers.
        scale = 255 / 65535 if picture.mode.startswith("I;16") or form == "PNG" or top > 255 else 1
    return Image.fromarray(np.rint(values * scale).astype(np.uint8))


def _why(file: Path) -> str | None:
    """A reason that Pillow does not give, from the first bytes of the file."""
    try:
        with file.open("rb") as opened:
            head = opened.read(64)
    except OSError:
        return None
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        return None if heif() else "it is a HEIC picture, which needs pillow-heif: pip install pillow-heif"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself: run git lfs pull"
    page = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return "it is a web page, not a picture" if page else None
