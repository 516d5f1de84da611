"""Reads the user's photos and masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_photos(folder: Path, width: int, height: int, what: str = "reference photos") -> np.ndarray:
    """Read every image of a folder in order of name, upright, cropped and resized: uint8 [n, height, width, 3].

    Raises UserError for a missing or empty folder, and for a file that cannot be read as an image (by name).
    """
    return np.stack([_cut(_upright(file, "RGB"), width, height) for file in photo_files(folder, what)])


def read_masks(folder: Path, photos: Path, width: int, height: int) -> np.ndarray:
    """Read the mask of each photo (same file stem), cropped like the photo: uint8 [n, height, width], white = subject.

    An image with transparent parts is a mask too: its opaque part is the subject. Raises UserError, naming the file,
    for a photo without a mask, an unreadable file, a mask of another size than its photo, or one without white; and
    when masks and photos are the same folder.
    """
    if Path(folder).resolve() == Path(photos).resolve():
        raise UserError(
            f"masks and reference photos are both read from {folder}, but a photo cannot be its own mask. Put the "
            "masks in a folder of their own."
        )
    masks, found = [], {f.stem: f for f in photo_files(folder, "masks")}
    for photo in photo_files(photos, "reference photos"):
        mask = found.get(photo.stem)
        if mask is None:
            raise UserError(
                f"{photo.name} has no mask in {folder}. Give every photo a mask of the same name ({photo.stem}.png), "
                "or use no masks."
            )
        (w, h), whole = _upright(photo, "RGB").size, _upright(mask, "mask")
        if whole.size != (w, h):
            raise UserError(
                f"{mask} is {whole.width}x{whole.height} pixels, its photo {w}x{h}: make them the same size."
            )
        if whole.getextrema()[1] < 128:
            raise UserError(f"{mask} shows no subject: no pixel is white. Paint the subject white and the rest black.")
        masks.append(_cut(whole, width, height))
        if masks[-1].max() < 128:
            raise UserError(
                f"{mask}: no part of the subject is left when photos are cropped to {width}x{height}. Crop photo and "
                "mask around the subject."
            )
    return np.stack(masks)


def photo_files(folder: Path, what: str) -> list[Path]:
    """The image files of a folder in order of name. Raises UserError when the folder is missing or has none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"the folder of {what} {folder} does not exist. Give a folder with {', '.join(SUFFIXES)} files."
        )
    # Skip hidden files: macOS writes metadata files beside each image.
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise UserError(
            f"the folder {folder} holds no {what}. Put at least one {', '.join(SUFFIXES)} file there; three to five "
            "are usual."
        )
    return files


def _upright(file: Path, mode: str) -> Picture:
    """The whole image, rotated by its EXIF orientation, in `mode`.

    Mode "mask" gives its transparency where it has any, else its brightness. Raises UserError, naming the file, when it
    cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if mode == "mask":
                cut_out = (
                    upright.has_transparency_data and upright.convert("RGBA").getchannel("A").getextrema()[0] < 255
                )
                return upright.convert("RGBA").getchannel("A") if cut_out else upright.convert("L")
            return upright.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{file} cannot be read as a picture ({error}). Replace it or take it out of the folder."
        ) from error


def _cut(picture: Picture, width: int, height: int) -> np.ndarray:
    """Crop to the aspect around the centre, then resize."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
