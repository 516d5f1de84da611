"""Concept: photos, masks and cut-outs as the graph gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...dpo_core.concept import Concept, doubts
from ...dpo_core.errors import UserError
from ...dpo_core.masks import LEAST, MOST, absurd, on_grey, oriented, percent, share, shares

_EMPTY = ("", "None", "null", "undefined")
"""Values of an empty text widget: the host turns null into "None"."""


@dataclass(frozen=True)
class Made:
    """The concept, its photos with all but the subject grey (PIL; none without masks), and the node's text."""

    concept: Concept
    shown: tuple[Any, ...]
    said: str


def empty_word(name: str, value: Any) -> str | None:
    """Why a text widget's value is no word, or None if it is one."""
    if isinstance(value, str) and value.strip() not in _EMPTY:
        return None
    return f"{name} is empty: write a word, such as 'sks' (identifier) or 'dog' (class noun)."


def concept_of(
    identifier: str, class_noun: str, references: Any, held_out: Any = None, masks: Any = None, mask_shows: str = "auto"
) -> Made:
    """Make the concept of IMAGE batches [n, H, W, 1, 3 or 4] and a MASK batch [n, H, W].

    The alpha channel of RGBA photos is their mask, unless masks are connected. mask_shows: what is white in the masks,
    see `dpo_core.masks.oriented`. Raises UserError, naming the input, for what does not fit or cannot be told.
    """
    from PIL import Image

    for name, value in (("identifier", identifier), ("class_noun", class_noun)):
        if wrong := empty_word(name, value):
            raise UserError(wrong)
    photos, opacity = _photos(references, "references")
    others = None if held_out is None else _photos(held_out, "held_out")[0]
    notes: list[str] = []
    if masks is not None:
        subject, done = _given(masks, photos, mask_shows)
        notes += [done] if done else []
        if opacity is not None:
            notes.append("references have an alpha channel: the connected masks are used, not the alpha")
    else:
        subject = None if opacity is None else _cut_outs(opacity, notes)
    concept = Concept(identifier, class_noun, photos, others, subject)
    names = [f"photo {i + 1}" for i in range(len(photos))]
    count = f"{len(photos)} photo{'s' * (len(photos) > 1)}"
    covered = "no masks: fidelity compares photos as a whole" if subject is None else shares(names, subject)
    lines = [f"{count}, {covered}", *(f"{note[0].upper()}{note[1:]}" for note in [*notes, *doubts(concept)])]
    said = "\n".join(line if line.endswith("?") else f"{line}." for line in lines)
    shown = () if subject is None else tuple(map(Image.fromarray, on_grey(photos, subject)))
    return Made(concept, shown, said)


def _photos(image: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """IMAGE -> uint8 [n, H, W, 3], on grey where it is transparent, and its opacity uint8 [n, H, W] or None."""
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise UserError(
            f"{name} has the shape {list(image.shape)}: connect an IMAGE batch of grey, RGB or RGBA pictures."
        )
    values = image.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"{name} has pixels that are no numbers (NaN): the node that makes it failed. Run that again.")
    pixels = _bytes(values)
    if pixels.shape[-1] != 4:
        return (pixels if pixels.shape[-1] == 3 else pixels.repeat(3, axis=-1)), None
    opacity = pixels[..., 3]
    photos = np.ascontiguousarray(pixels[..., :3])
    return (photos, None) if opacity.min() == 255 else (on_grey(photos, opacity), opacity)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _cut_outs(opacity: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """Masks from the alpha channels; a photo without transparent parts counts as a whole. None if all are such."""
    seen = [share(mask) for mask in opacity]
    for i, covered in enumerate(seen):
        if covered < LEAST:
            raise UserError(
                f"photo {i + 1} of references is transparent: only {percent(covered)} of it can be seen. Cut it out "
                "again, or leave it out."
            )
    whole = [str(i + 1) for i, covered in enumerate(seen) if covered > MOST]
    if len(whole) == len(seen):
        notes.append("references have an alpha channel, but hardly a transparent part: they are no cut-outs")
        return None
    notes.append("references have an alpha channel: the opaque part is the subject's mask; the rest is grey")
    if whole:
        notes.append(f"photo {', '.join(whole)} is no cut-out, so all of it counts as the subject")
    return opacity


def _given(masks: Any, photos: np.ndarray, mask_shows: str) -> tuple[np.ndarray, str]:
    """The connected masks as uint8 [n, H, W], subject white, and what was done to them."""
    found = masks[None] if masks.ndim == 2 else masks[:, 0] if masks.ndim == 4 and masks.shape[1] == 1 else masks
    values = found.float().cpu().numpy()
    if values.ndim != 3 or not np.isfinite(values).all():
        raise UserError(f"masks has the shape {list(values.shape)} or holds no numbers: connect a MASK [n, H, W].")
    pixels = _bytes(values)
    height, width = photos.shape[1:3]
    if not pixels.any():
        raise UserError(
            "masks are black everywhere. Load Image gives such a mask for a photo without transparency: disconnect "
            "masks, or paint the subject in the mask editor."
        )
    if len(pixels) != len(photos):
        raise UserError(
            f"masks holds {len(pixels)}, references {len(photos)}: connect one mask for each photo, in the same order, "
            "as one batch."
        )
    if pixels.shape[1:] != (height, width):
        raise UserError(
            f"masks are {pixels.shape[2]}x{pixels.shape[1]} pixels, references {width}x{height}: use masks of the "
            "photos' size. If you crop or resize photos, treat their masks in the same way."
        )
    whole = pixels.min(axis=(1, 2)) == 255
    if whole.all() or mask_shows == "background":  # there, white everywhere is no subject
        whole[:] = False
    for i, mask in enumerate(pixels):
        if not whole[i] and (wrong := absurd(mask)):
            raise UserError(f"mask {i + 1} of {len(pixels)} {wrong}")
    return _beside_whole(pixels, whole, mask_shows)


def _beside_whole(pixels: np.ndarray, whole: np.ndarray, mask_shows: str) -> tuple[np.ndarray, str]:
    """Masks with the subject white, and what was done; those marked `whole` stay white: all of the photo counts.

    Subject Photos gives such a mask for a photo without one, where others have theirs.
    """
    found = pixels.copy()
    found[~whole], done = oriented(pixels[~whole], mask_shows)
    if not whole.any():
        return found, done
    which = ", ".join(str(i + 1) for i in np.flatnonzero(whole))
    if not np.array_equal(found, pixels):
        raise UserError(
            f"mask {which} is white everywhere, and white is the background in the other masks, so it shows no "
            "subject. Paint the subject black in it, or set mask_shows to 'subject' if white is the subject."
        )
    return found, f"mask {which} is white everywhere: all of that photo counts as the subject"
