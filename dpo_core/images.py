"""Reading a user's photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_photos(folder: Path, width: int, height: int, what: str = "reference photos") -> np.ndarray:
    """Every picture of a folder by name, turned upright, cropped to the aspect and resized: uint8 [n, height, width, 3].

    Raises UserError for a missing or empty folder, and for a file that is no readable picture (by name).
    """
    from PIL import Image, ImageOps

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"the folder of {what} {folder} does not exist. Give a folder with {', '.join(SUFFIXES)} files.")
    # Hidden files are no photos: some systems lay their own notes beside each picture.
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise UserError(f"the folder {folder} holds no {what}. Put at least one {', '.join(SUFFIXES)} file there; three to five are usual.")
    photos = []
    for file in files:
        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
                photos.append(np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} cannot be read as a picture ({error}). Replace it or take it out of the folder.") from error
    return np.stack(photos)
