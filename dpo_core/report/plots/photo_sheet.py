"""The sheet of a subject's photos: each as it is used, with the outline of its mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...masks import GREY, percent, share, white
from ...run.subject_photos import Photo, SubjectPhotos
from .grids import GAP, font
from .theme import colours

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

CELL, LINE, LINES = 320, 28, 4
"""Side of a photo on the sheet; height of a line of text below it, and how many there are. Unit: pixels."""
OUTLINE = (255, 176, 0)
_DIM = 0.55
"""Weight of grey outside a mask."""


def photo_sheet(found: SubjectPhotos) -> Image:
    """All photos, numbered: name, size, what was cut, where the mask comes from, and whether it is held out."""
    from PIL import Image, ImageDraw

    count = len(found.photos)
    columns = count if count <= 4 else 3 if count <= 6 else 4 if count <= 12 else 5
    width, height = CELL + 2 * GAP, CELL + LINES * LINE + 3 * GAP
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * height), colours().paper)
    draw, mark = ImageDraw.Draw(sheet), colours().blue
    for i, photo in enumerate(found.photos):
        left, top = i % columns * width + GAP, i // columns * height + GAP
        sheet.paste(seen(photo), (left, top))
        _label(draw, photo, i + 1, found.settings.crop, (left, top + CELL + GAP))
        if photo.held_out:
            draw.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=mark, width=6)
            draw.rectangle((left, top, left + 132, top + 34), fill=mark)
            draw.text((left + 66, top + 17), "held out", fill=colours().inside, font=font(22, True), anchor="mm")
    return sheet


def seen(photo: Photo) -> Image:
    """A photo at the sheet's size; what is outside its mask is dimmed, and the mask's outline drawn."""
    from PIL import Image

    picture = Image.fromarray(photo.pixels).resize((CELL, CELL), Image.Resampling.LANCZOS)
    if photo.mask is None:
        return picture
    inside = white(np.asarray(Image.fromarray(photo.mask).resize((CELL, CELL), Image.Resampling.BILINEAR)))
    values = np.asarray(picture).astype(np.float32)
    values[~inside] = (1 - _DIM) * values[~inside] + _DIM * GREY
    values[outline(inside, 3)] = 0
    values[outline(inside, 2)] = OUTLINE
    return Image.fromarray(values.round().astype(np.uint8))


def outline(inside: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask, bool [H, W], within `width` pixels of its edge, on both sides; the picture's rim is no edge."""
    rows, columns = inside.shape
    around = np.pad(inside, width, mode="edge")
    steps = [(y, x) for y in range(2 * width + 1) for x in range(2 * width + 1)]
    shifted = [around[y : y + rows, x : x + columns] for y, x in steps]
    return np.any(shifted, axis=0) & ~np.all(shifted, axis=0)


def _label(draw: ImageDraw, photo: Photo, number: int, crop: str, at: tuple[int, int]) -> None:
    left, top = at
    name = photo.name if drawable(photo.name) else f"photo {number}"
    draw.text((left, top), short(f"{number}  {name}", font(22, True)), fill=colours().ink, font=font(22, True))
    for i, line in enumerate(words(photo, crop)):
        draw.text((left, top + (i + 1) * LINE), short(line, font(20)), fill=colours().faint, font=font(20))


def words(photo: Photo, crop: str) -> tuple[str, str, str]:
    """What was done to a photo, in three lines: its size, its square, its mask."""
    size = photo.pixels.shape[0]
    about = "the subject" if photo.mask is not None and crop == "subject" else "the centre"
    square = f"all of it, padded to {size}" if crop == "pad" else f"{photo.side} px around {about}"
    if photo.whole == (photo.side, photo.side):
        square = f"all of it, to {size}"
    mask = "no mask: all of it counts"
    if photo.mask is not None:
        mask = f"{'alpha' if photo.source == 'alpha' else 'mask'}: subject {percent(share(photo.mask))}"
    return f"{photo.whole[0]} x {photo.whole[1]} px", square, mask


def drawable(text: str) -> bool:
    """Whether the sheet's letters have every sign of a text."""
    from matplotlib.ft2font import FT2Font

    signs = FT2Font(font(22, True).path).get_charmap()
    return all(ord(sign) in signs for sign in text)


def short(text: str, letters: FreeTypeFont, width: int = CELL) -> str:
    """The text if it fits; else its beginning and its end, which tells names of one camera apart."""
    for signs in range(len(text), 2, -1):
        end = signs // 2
        kept = text if signs == len(text) else f"{text[: signs - end]}…{text[-end:]}"
        if letters.getlength(kept) <= width:
            return kept
    return "…"
