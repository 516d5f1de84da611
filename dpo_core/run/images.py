"""Reads the user's photos and masks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..masks import LEAST, MOST, absurd, percent, share, shares, shows, surrounds
from .photo_folder import SUFFIXES, PhotoFolder, look
from .picture_file import Opened, open_picture

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["SUFFIXES", "fitted", "read_masks", "read_photos", "read_picture", "read_subject"]
Say = Callable[[str], None]
Find = Callable[[np.ndarray], np.ndarray]
"""Photo uint8 [H, W, 3] -> mask of its subject uint8 [H, W], 255 = subject; ValueError where it sees none."""


def warn(text: str) -> None:
    """Say a sentence on the log."""
    logging.warning("%s", text)


def read_picture(file: Path, width: int, height: int) -> np.ndarray:
    """One picture, upright, on grey, cropped and resized as reference photos are: uint8 [height, width, 3]."""
    return _cut(open_picture(file).rgb, width, height)


def read_photos(folder: Path, width: int, height: int, what: str = "reference photos", say: Say = warn) -> np.ndarray:
    """Read every image of a folder in order of name, upright, cropped and resized: uint8 [n, height, width, 3].

    Transparent parts become grey. `say` gets what is skipped or changed. Raises UserError for a missing or empty
    folder, and for a file that cannot be read as an image (by name).
    """
    found = look(folder, what)
    opened = _opened(found, what, say)
    return np.stack([_cut(o.rgb, width, height) for o in opened.values()])


def read_subject(
    folder: Path, masks: Path | None, width: int, height: int, say: Say = warn, find: Find | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The reference photos, and the masks of their subject: uint8 [n, height, width, 3], [n, height, width] or None.

    masks: a folder, see `read_masks`. Without one, masks beside the photos count, else the transparency of cut-outs;
    of photos and cut-outs together, a photo counts as a whole. find: makes the masks where there are none of these.
    `say` gets what is used, skipped or changed. Raises UserError as `read_photos` and `read_masks`, and for a photo in
    which `find` sees no subject.
    """
    what = "reference photos"
    found = look(folder, what)
    opened = _opened(found, what, say)
    photos = np.stack([_cut(o.rgb, width, height) for o in opened.values()])
    cut_out = [p.name for p, o in opened.items() if o.opacity is not None]
    if masks is not None or found.masks:
        source = f"the masks of {masks}" if masks is not None else "the masks beside the photos"
        if masks is not None and found.masks and not _same(masks, folder):
            say(f"{', '.join(m.name for m in found.masks.values())}: masks beside the photos, not used; {source} are")
        if cut_out:
            say(f"{', '.join(cut_out)}: transparent, but {source} are used, not the transparency")
        pairs = _beside(found) if masks is None else _pairs(masks, found, folder)
        return photos, _masks(pairs, opened, width, height, say)
    made = _opacities(opened, width, height, say)
    if made is None and find is not None:
        return photos, _found(opened, width, height, say, find)
    return photos, made


def _found(opened: dict[Path, Opened], width: int, height: int, say: Say, find: Find) -> np.ndarray:
    """The masks of photos as a model makes them, checked like given ones."""
    from PIL import Image

    whole: dict[Path, np.ndarray] = {}
    for photo, picture in opened.items():
        remedy = "Give this photo's mask by hand, or take the photo out of the folder."
        try:
            whole[photo] = find(np.asarray(picture.rgb))
        except ValueError as error:
            raise UserError(f"{photo}: {error} {remedy}") from error
        if absurd(whole[photo]):
            raise UserError(
                f"{photo}: the mask that the model made covers {percent(share(whole[photo]))} of it, so it shows no "
                f"subject. {remedy}"
            )
    say(f"masks are made by a model: {shares([photo.name for photo in whole], list(whole.values()))}")
    cut = {photo: _cut(Image.fromarray(mask), width, height) for photo, mask in whole.items()}
    return np.stack([_subject_left(mask, photo, width, height) for photo, mask in cut.items()])


def read_masks(folder: Path, photos: Path, width: int, height: int, say: Say = warn) -> np.ndarray:
    """Read the mask of each photo (same file stem), cropped like the photo: uint8 [n, height, width], white = subject.

    An image with transparent parts is a mask too: its opaque part is the subject. `say` gets the share of each photo
    that its mask covers. Raises UserError, naming the file, for a photo without a mask, an unreadable file, a mask of
    another size than its photo, one that covers below 1 or above 99 % of it, or one whose white surrounds its black;
    and when masks and photos are the same folder, unless it holds masks by name (a-masklabel.png).
    """
    found = look(photos, "reference photos")
    return _masks(_pairs(folder, found, photos), {p: open_picture(p) for p in found.photos}, width, height, say)


def _opened(found: PhotoFolder, what: str, say: Say) -> dict[Path, Opened]:
    """All photos of a folder; says what is skipped or changed."""
    opened = {photo: open_picture(photo) for photo in found.photos}
    for line in [*found.said(what), *(note for o in opened.values() for note in o.notes)]:
        say(line)
    return opened


def _same(one: Path, other: Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _pairs(folder: Path, found: PhotoFolder, photos: Path) -> dict[Path, Path]:
    """The mask file of each photo, from the folder of masks."""
    if _same(folder, photos):
        if found.masks:
            return _beside(found)
        raise UserError(
            f"masks and reference photos are both read from {folder}, but a photo cannot be its own mask. Put the "
            "masks in a folder of their own."
        )
    files = look(folder, "masks").photos
    stems = {f.stem: f for f in files}
    # OneTrainer's and other tools' names, in a folder of their own.
    for end in ("-masklabel", "_mask", "-mask", ".mask", " mask", "_matte"):
        stems |= {f.stem[: -len(end)]: f for f in files if f.stem.endswith(end) and f.stem[: -len(end)] not in stems}
    for photo in found.photos:
        if photo.stem not in stems:
            raise UserError(
                f"{photo.name} has no mask in {folder}. Give every photo a mask of the same name ({photo.stem}.png), "
                "or use no masks."
            )
    return {photo: stems[photo.stem] for photo in found.photos}


def _beside(found: PhotoFolder) -> dict[Path, Path]:
    """The mask beside each photo. Raises UserError for a photo without one where others have theirs."""
    for photo in found.photos:
        if photo not in found.masks:
            one = next(iter(found.masks.values()))
            raise UserError(
                f"{photo.name} has no mask beside it, but other photos have ({one.name}). Give every photo a mask, or "
                "take the masks out of the folder."
            )
    return found.masks


def _masks(pairs: dict[Path, Path], opened: dict[Path, Opened], width: int, height: int, say: Say) -> np.ndarray:
    whole = {photo: mask_in(file, opened[photo].rgb.size, say) for photo, file in pairs.items()}
    say(shares([photo.name for photo in whole], [np.asarray(mask) for mask in whole.values()]))
    return np.stack([_subject_left(_cut(whole[p], width, height), pairs[p], width, height) for p in whole])


def mask_in(file: Path, size: tuple[int, int], say: Say) -> Picture:
    """The mask (L, white = subject) in the file of a photo of this size (width, height); raises as `read_masks`."""
    mask = _mask(file)
    if mask.size != size:
        raise UserError(
            f"{file} is {mask.width}x{mask.height} pixels, its photo {size[0]}x{size[1]}: make them the same size."
        )
    values = np.asarray(mask)
    if wrong := absurd(values):
        raise UserError(f"{file} {wrong}")
    remedy = "White must be the subject: invert the mask."
    if surrounds(values):
        raise UserError(
            f"{file} seems to be inverted: white is along all four borders and black within. {remedy} If the white is "
            "the subject all the same, leave some black around it."
        )
    if shows(values) == "background":
        say(f"{file.name} may be inverted: its white touches most of the border. {remedy}")
    return mask


def _opacities(opened: dict[Path, Opened], width: int, height: int, say: Say) -> np.ndarray | None:
    """Masks from the transparency of cut-outs; None where no photo is one."""
    from PIL import Image

    cut_outs = {photo: mask for photo, picture in opened.items() if (mask := cut_out(photo, picture, say)) is not None}
    if not cut_outs:
        return None
    say(f"{', '.join(p.name for p in cut_outs)}: cut out, so the opaque part is the subject's mask; the rest is grey")
    say(shares([p.name for p in cut_outs], [np.asarray(o) for o in cut_outs.values()]))
    if whole := [p.name for p in opened if p not in cut_outs]:
        say(f"{', '.join(whole)}: no cut-out among cut-outs, so all of it counts as the subject. Cut it out as well")
    masks = []
    for photo, picture in opened.items():
        mask = cut_outs.get(photo) or Image.new("L", picture.rgb.size, 255)
        masks.append(_subject_left(_cut(mask, width, height), photo, width, height))
    return np.stack(masks)


def cut_out(photo: Path, picture: Opened, say: Say) -> Picture | None:
    """The mask (L) of a cut-out: its opacity. None for a photo without, or with hardly, a transparent part.

    Raises UserError for one of which hardly anything can be seen, or whose subject seems to be cut away.
    """
    if picture.opacity is None:
        return None
    seen = share(values := np.asarray(picture.opacity))
    if seen < LEAST:
        raise UserError(
            f"{photo} is transparent: only {percent(seen)} of it can be seen. Cut it out again, or take it out of "
            "the folder."
        )
    if surrounds(values) and seen <= MOST:
        raise UserError(
            f"{photo} is transparent in the middle and opaque along all four borders, so the subject seems to be "
            "cut away. Keep the subject and make the background transparent, or give masks."
        )
    if seen > MOST:
        say(f"{photo.name} is transparent in {percent(1 - seen)} of it alone: no cut-out; that part is grey")
        return None
    return picture.opacity


def _mask(file: Path) -> Picture:
    """The mask in a file: its opacity where it has transparent parts, else its brightness."""
    opened = open_picture(file)
    return opened.opacity if opened.opacity is not None else opened.rgb.convert("L")


def _subject_left(mask: np.ndarray, file: Path, width: int, height: int) -> np.ndarray:
    if mask.max() < 128:
        raise UserError(
            f"{file}: no part of the subject is left when photos are cropped to {width}x{height}. Crop photo and "
            "mask around the subject."
        )
    return mask


def fitted(photo: np.ndarray, width: int, height: int) -> np.ndarray:
    """A photo uint8 [H, W, 3] cropped and resized: uint8 [height, width, 3]; one of that size is returned as it is."""
    from PIL import Image

    return photo if photo.shape[:2] == (height, width) else _cut(Image.fromarray(photo), width, height)


def _cut(picture: Picture, width: int, height: int) -> np.ndarray:
    """Crop to the aspect around the centre, then resize."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))
