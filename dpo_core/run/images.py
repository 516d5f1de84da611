"""Reading a user's photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_photos(folder: Path, width: int, height: int, what: str = "reference photos") -> np.ndarray:
    """Every picture of a folder by name, turned upright, cropped to the aspect and resized: uint8 [n, height, width,
    3].

    Raises UserError for a missing or empty folder, and for a file that is no readable picture (by name).
    """
    return np.stack([_cut(_upright(file, "RGB"), width, height) for file in photo_files(folder, what)])


def read_masks(folder: Path, photos: Path, width: int, height: int) -> np.ndarray:
    """The mask of each photo, found by its file's stem, cut as the photo is: uint8 [n, height, width], white = subject.

    A cut-out (a picture with transparent parts) is a mask too: what is opaque is the subject.

    Raises UserError that names a photo without a mask, an unreadable file, a mask of another size than its photo, or
    one without white.
    """
    if Path(folder).resolve() == Path(photos).resolve():
        raise UserError(
            f"masks and reference photos are both read from {folder}: a photo is no mask of itself. Give the masks a folder."
        )
    masks, found = [], {f.stem: f for f in photo_files(folder, "masks")}
    for photo in photo_files(photos, "reference photos"):
        mask = found.get(photo.stem)
        if mask is None:
            raise UserError(
                f"{photo.name} has no mask in {folder}. Give every photo one of its name ({photo.stem}.png), or none at all."
            )
        (w, h), whole = _upright(photo, "RGB").size, _upright(mask, "mask")
        if whole.size != (w, h):
            raise UserError(
                f"{mask} is {whole.width}x{whole.height} pixels, its photo {w}x{h}: make them the same size."
            )
        if whole.getextrema()[1] < 128:
            raise UserError(
                f"{mask} shows no subject: nothing of it is white. Paint the subject white and the rest black."
            )
        masks.append(_cut(whole, width, height))
        if masks[-1].max() < 128:
            raise UserError(
                f"{mask}: nothing of the subject is left when photos are cut to {width}x{height}. Crop both about the subject."
            )
    return np.stack(masks)


def photo_files(folder: Path, what: str) -> list[Path]:
    """The pictures of a folder by name. Raises UserError when it is missing or holds none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"the folder of {what} {folder} does not exist. Give a folder with {', '.join(SUFFIXES)} files."
        )
    # Hidden files are no photos: some systems lay their own notes beside each picture.
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise UserError(
            f"the folder {folder} holds no {what}. Put at least one {', '.join(SUFFIXES)} file there; three to five are usual."
        )
    return files


def _upright(file: Path, mode: str) -> Picture:
    """The whole picture, turned upright; mode "mask": its transparency where it has any, else its brightness.

    Raises UserError with its name when it cannot be read.
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
    """Cropped about the middle to the aspect, then resized."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
