"""Previews: small WebP copies of a set's candidates and of the reference photos, in <run>/<set>/previews.

A preview's name contains a hash of the image's content: a changed image gets another name, so that browsers may cache
previews.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..progress import Progress, silent
from .files import atomic_path
from .folder import RunFolder

LONGEST_SIDE = 384
"""Longest side of a preview. Unit: pixels."""
PLAIN_SIDE = 128
"""Images up to this side are stored without loss, because blur would hide what so few pixels show. Unit: pixels."""
QUALITY = 88
SET = re.compile(r"[a-z][a-z0-9_]{0,99}")
NAME = re.compile(r"(?:[0-9]{5,9}|reference_[0-9]{2,3})_[0-9a-f]{12}\.webp")
BLOCK = 16


def previews_folder(run: Path, set_name: str) -> Path:
    return run / set_name / "previews"


def picture_mark(pixels: np.ndarray) -> str:
    """Hash of an image's pixels, uint8 [H, W, 3], as 12 hex digits."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]


def candidate_previews(run: RunFolder, set_name: str, progress: Progress = silent) -> tuple[list[str], list[str]]:
    """Names of the previews of a whole set, and hashes of its images, both by position; missing previews are made.

    Hashes are stored as the fact "pictures_<set>" with time and size of the image file; a file that changed is hashed
    again. Raises UserError when an image is missing.
    """
    candidates, folder = run.candidates(set_name), previews_folder(run.path, set_name)
    kept = run.fact(f"pictures_{set_name}") or {}
    marks, names = {}, []
    for done, position in enumerate([c.position for c in candidates], 1):
        file = _stamp(run.image_path(set_name, position))
        known = kept.get(str(position))
        if known and file and known[1:] == file and (folder / _name(position, known[0])).is_file():
            marks[str(position)] = known
        else:
            pixels = run.images(set_name, [position])[0]
            marks[str(position)] = [picture_mark(pixels), *(file or [])]
            _write(folder / _name(position, marks[str(position)][0]), pixels)
        names.append(_name(position, marks[str(position)][0]))
        if done % BLOCK == 0 or done == len(candidates):
            progress(f"previews {set_name}", done, len(candidates))
    if marks != kept:
        run.set_fact(f"pictures_{set_name}", marks)
    return names, [mark[0] for mark in marks.values()]


def some_previews(run: RunFolder, set_name: str, positions: Sequence[int]) -> list[str]:
    """Names of the previews of a few images of a set; missing ones are made. Raises UserError for a missing image."""
    names = []
    for position in positions:
        pixels = run.images(set_name, [position])[0]
        names.append(_name(position, picture_mark(pixels)))
        path = previews_folder(run.path, set_name) / names[-1]
        if not path.is_file():
            _write(path, pixels)
    return names


def reference_previews(run: RunFolder, set_name: str, references: Sequence[np.ndarray], most: int = 8) -> list[str]:
    """Names of the previews of the first `most` reference photos, uint8 [H, W, 3] each."""
    names = []
    for number, pixels in enumerate(references[:most]):
        names.append(f"reference_{number:02d}_{picture_mark(pixels)}.webp")
        path = previews_folder(run.path, set_name) / names[-1]
        if not path.is_file():
            _write(path, pixels)
    return names


def find_preview(run: Path, set_name: str, name: str) -> Path | None:
    """The file of a preview; None if it does not exist, or if the names are invalid or lead out of its folder."""
    if not (SET.fullmatch(set_name) and NAME.fullmatch(name)):
        return None
    folder = previews_folder(run.resolve(), set_name)
    path = (folder / name).resolve()  # follows links, which may lead out of the folder
    return path if path.parent == folder and path.is_file() else None


def find_picture(run: Path, set_name: str, name: str) -> Path | None:
    """The file of the candidate that a preview is of; None where there is no such preview, and for reference photos."""
    number = name.partition("_")[0]
    if not number.isdigit() or find_preview(run, set_name, name) is None:
        return None
    folder = run.resolve() / set_name / "images"
    path = (folder / f"{number}.png").resolve()
    return path if path.parent == folder and path.is_file() else None


def _name(position: int, mark: str) -> str:
    return f"{position:05d}_{mark}.webp"


def _stamp(path: Path) -> list[int] | None:
    """Modification time (ns) and size (bytes) of a file; None if it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_mtime_ns, found.st_size]


def _write(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    plain = max(image.size) <= PLAIN_SIDE
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    with atomic_path(path) as beside:
        image.save(beside, "WEBP", lossless=plain, quality=QUALITY, method=2)
