"""The photos of a subject as squares of one size, each with its mask; what is skipped, and why.

`images.read_subject` reads a folder for the command line: it crops all photos alike and refuses what it cannot read.
Here each photo is cropped by itself, and a file that is no photo of use is skipped by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..masks import GREY, MOST, percent, share, white
from ..settings import PhotoSettings
from .images import Say, cut_out, mask_in
from .photo_folder import USUAL, PhotoFolder, by_reason
from .picture_file import UnreadablePicture, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

LEAST_SIDE = 64
"""Photos with a shorter side are skipped. Unit: pixels."""
ROOM = 1.25
"""Side of the square around a subject, as a multiple of the longer side of the subject."""
_LOST = 0.01
"""Share of a subject's mask outside its square from which on it is said."""
_ENLARGED = 1.5
"""Factor from which on it is said that photos are enlarged."""


@dataclass(frozen=True)
class Photo:
    """One photo as it is used."""

    name: str
    pixels: np.ndarray
    """uint8 [size, size, 3]."""
    mask: np.ndarray | None
    """uint8 [size, size], 255 = subject; None where the whole photo counts."""
    whole: tuple[int, int]
    """Width and height of the photo, upright."""
    side: int
    """Side of the square that was taken from it; with padding its longer side."""
    source: str = ""
    """Where the mask comes from: a file's name, "alpha", or "" for none."""
    held_out: bool = False


@dataclass(frozen=True)
class SubjectPhotos:
    """The photos in order of name, files that are not used, each with its reason, and sentences on what was done."""

    photos: tuple[Photo, ...]
    settings: PhotoSettings
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def references(self) -> np.ndarray:
        """uint8 [n, size, size, 3]."""
        return np.stack([photo.pixels for photo in self.photos if not photo.held_out])

    @property
    def held_out(self) -> np.ndarray | None:
        """uint8 [h, size, size, 3]; None without held-out photos."""
        found = [photo.pixels for photo in self.photos if photo.held_out]
        return np.stack(found) if found else None

    @property
    def masks(self) -> np.ndarray | None:
        """Masks of the references, uint8 [n, size, size]: white for one without. None where no reference has one."""
        shown = [photo for photo in self.photos if not photo.held_out]
        if all(photo.mask is None for photo in shown):
            return None
        return np.stack([np.full(p.pixels.shape[:2], 255, np.uint8) if p.mask is None else p.mask for p in shown])


def subject_photos(found: PhotoFolder, settings: PhotoSettings) -> SubjectPhotos:
    """Read the photos of a folder, or of a list of files, bring them to squares, and hold out the last ones.

    Skipped, each with its reason: files that are no pictures or cannot be read, photos below `LEAST_SIDE`, and the
    same file once more. Raises UserError where no photo or no reference is left, for a mask that does not fit its
    photo or shows no subject (as `images.read_masks`), and for a crop that leaves none of the subject.
    """
    notes = list(found.notes)
    twins = found.twins
    skipped = list(found.skipped)
    photos = []
    for file in found.photos:
        if file in twins:
            skipped.append((file.name, f"the same file as {twins[file].name}"))
            continue
        try:
            photos.append(_photo(file, found.masks.get(file), settings, notes.append))
        except UnreadablePicture as error:
            skipped.append((file.name, f"cannot be read: {error.reason}"))
        except _TooSmall as error:
            skipped.append((file.name, str(error)))
    if not photos:
        raise UserError(no_photo(skipped))
    _check_held_out(settings.held_out, len(photos))
    first = len(photos) - settings.held_out
    used = tuple(replace(photo, held_out=i >= first) for i, photo in enumerate(photos))
    return SubjectPhotos(used, settings, tuple(skipped), (*notes, *_enlarged(used, settings.size)))


class _TooSmall(ValueError):
    """A photo below `LEAST_SIDE`."""


def _photo(file: Path, mask_file: Path | None, settings: PhotoSettings, say: Say) -> Photo:
    opened = open_picture(file)
    picture, size = opened.rgb, settings.size
    if min(picture.size) < LEAST_SIDE:
        raise _TooSmall(
            f"too small: {picture.width}x{picture.height} pixels, the shorter side must have {LEAST_SIDE} or more"
        )
    for note in opened.notes:
        say(note)
    if mask_file is None:
        mask = cut_out(file, opened, say)
    else:
        mask = mask_in(mask_file, picture.size, say)
        if opened.opacity is not None:
            say(f"{file.name} is transparent, but its mask {mask_file.name} is used, not the transparency")
    source = "" if mask is None else mask_file.name if mask_file is not None else "alpha"
    if settings.crop == "pad":
        pixels, shown = padded(picture, size, GREY), None if mask is None else padded(mask, size, 0)
        side = max(picture.size)
    else:
        box = square(picture.size, None if mask is None or settings.crop == "centre" else np.asarray(mask), size)
        pixels, shown = _cut(picture, box, size), None if mask is None else _cut(mask, box, size)
        side = box[2] - box[0]
        _say_what_is_lost(file, mask, box, settings.crop, say)
    if shown is not None and share(shown) > MOST:
        say(f"{file.name}: the subject fills the square, so the whole square counts")
        shown, source = None, ""
    return Photo(file.name, pixels, shown, picture.size, side, source)


def square(size: tuple[int, int], mask: np.ndarray | None, least: int) -> tuple[int, int, int, int]:
    """The square to cut from a photo of this size (width, height): left, top, right, bottom.

    Without a mask: the largest one, in the middle. With one (uint8 [H, W]): around its white, `ROOM` times as large as
    that, but at least `least` pixels, so that nothing is enlarged without need; never beyond the photo. By hand: a
    photo of 400x300 with its subject at x 200..280, y 100..200: side 125, middle (240, 150), so left 177, top 87.
    """
    width, height = size
    side = most = min(size)
    middle = (width / 2, height / 2)
    if mask is not None and white(mask).any():
        seen = white(mask)
        (left, right), (top, bottom) = (_ends(seen.any(axis=0)), _ends(seen.any(axis=1)))
        side = min(max(int(ROOM * max(right - left, bottom - top)), least), most)
        middle = ((left + right) / 2, (top + bottom) / 2)
    left, top = (min(max(int(m - side / 2), 0), whole - side) for m, whole in zip(middle, size, strict=True))
    return left, top, left + side, top + side


def _ends(line: np.ndarray) -> tuple[int, int]:
    """First true index, and the one after the last."""
    found = np.flatnonzero(line)
    return int(found[0]), int(found[-1]) + 1


def padded(picture: Picture, size: int, grey: int) -> np.ndarray:
    """The whole picture, as large as fits, in the middle of a square of one grey level: uint8 [size, size(, 3)]."""
    from PIL import Image, ImageOps

    colour = grey if picture.mode == "L" else (grey, grey, grey)
    return np.asarray(ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS, color=colour))


def _cut(picture: Picture, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))


def _say_what_is_lost(file: Path, mask: Picture | None, box: tuple[int, int, int, int], crop: str, say: Say) -> None:
    """Say which share of the subject lies outside the square. Raises UserError where it is nearly all."""
    if mask is None:
        return
    seen = white(np.asarray(mask))
    left, top, right, bottom = box
    lost = 1 - seen[top:bottom, left:right].sum() / seen.sum()
    other = "pad" if crop == "subject" else "subject or pad"
    if lost > 1 - _LOST:
        raise UserError(
            f"{file}: no part of the subject is left in the square (crop is {crop}). Set crop to {other}, or take the "
            "photo out."
        )
    if lost >= _LOST:
        say(f"{file.name}: {percent(lost)} of the subject is outside the square. Set crop to {other} to keep all of it")


def _check_held_out(held_out: int, count: int) -> None:
    if held_out < count:
        return
    several = f"{count} photos" if count > 1 else "1 photo"
    remedy = "0 (none)" if count < 3 else f"{max(1, count // 4)}, or any number up to {count - 1}"
    raise UserError(
        f"held_out is {held_out}, but there {'are' if count > 1 else 'is'} {several}, so no reference photo would "
        f"remain. Set held_out to {remedy}, or add photos."
    )


def _enlarged(photos: tuple[Photo, ...], size: int) -> list[str]:
    small = [f"{photo.name} ({photo.side})" for photo in photos if photo.side * _ENLARGED < size]
    if not small:
        return []
    return [f"enlarged to {size} pixels, which adds no detail: {', '.join(small)}. Larger photos of the subject help"]


def no_photo(skipped: Iterable[tuple[str, str]]) -> str:
    """What is said where no file is a photo of use."""
    skipped = list(skipped)
    there = f": {by_reason(skipped)}" if skipped else ""
    return (
        f"none of the files can be used as a photo of the subject{there}. Give {', '.join(USUAL)} files; three to ten "
        "photos are usual."
    )
