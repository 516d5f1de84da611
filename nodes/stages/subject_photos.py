"""Subject Photos: find the photos in ComfyUI's input folder, bring them to squares, and say what was done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ...dpo_core.errors import UserError
from ...dpo_core.masks import percent, share, shows
from ...dpo_core.run.photo_folder import PhotoFolder, by_reason, chosen, look
from ...dpo_core.run.subject_photos import SubjectPhotos, no_photo, subject_photos
from ...dpo_core.settings import PhotoSettings
from ..host.input_folder import base, inside, picture_folders

FILES_BELOW = "(files below)"
"""Option of the folder's widget: the photos are those of `files`."""
EXAMPLE = "example.png"
"""The picture that ComfyUI comes with; the examples name it where the user's photos belong."""
_MOST_NAMES = 5


@dataclass(frozen=True)
class Made:
    """The node's outputs as tensors, the sheet (PIL), and the node's text."""

    references: Any
    masks: Any
    held_out: Any
    sheet: Any
    said: str


def folder_options() -> list[str]:
    """What the folder's widget offers."""
    return [FILES_BELOW, *picture_folders()]


def find_photos(folder: str, files: str) -> PhotoFolder:
    """The photos of a folder, or of the list of files where none is chosen; no picture is opened.

    Raises UserError for a name that is not in the input folder, a folder without photos, and an empty list.
    """
    names = [line.strip() for line in files.split("\n") if line.strip()]
    if folder == FILES_BELOW:
        found = chosen(_paths(names))
        if not found.photos:
            raise UserError(no_photo(found.skipped))
        return found
    path = inside(folder)
    if path is None or not path.is_dir():
        there = by_names(picture_folders()) or "none"
        raise UserError(
            f"folder {folder!r} is no folder inside ComfyUI's input folder ({base()}). Folders with pictures there: "
            f"{there}. Choose one of them, or {FILES_BELOW} and add photos to the node."
        )
    return look(path, "reference photos")


def _paths(names: list[str]) -> list[Path]:
    if not names:
        raise UserError(
            "there are no photos: files is empty, and no folder is chosen. Drop photos of your subject onto the node, "
            "press Add photos, or choose a folder. Three to ten photos are usual."
        )
    paths = {name: inside(name) for name in names}
    if outside := [name for name, path in paths.items() if path is None]:
        raise UserError(
            f"files names {by_names(outside)}, which is not inside ComfyUI's input folder ({base()}). Add photos by "
            "the button or by dropping them onto the node: they are then copied there."
        )
    found = {name: path for name, path in paths.items() if path is not None and path.is_file()}
    if missing := [name for name in paths if name not in found]:
        raise UserError(
            f"files names {by_names(missing)}, but there is no such file in ComfyUI's input folder ({base()}). Add the "
            "photos again, or take these lines out of files."
        )
    return list(found.values())


def by_names(names: Iterable[str]) -> str:
    """Names as one text; of many, the first ones."""
    listed = list(names)
    more = len(listed) - _MOST_NAMES
    return ", ".join(listed[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def stamp(folder: str, files: str) -> list:
    """Names and contents of all files that count: changed photos or masks run the node again, and nothing else does."""
    try:
        found = find_photos(folder, files)
    except UserError as error:
        return [str(error)]
    used = [*found.photos, *found.masks.values()]
    return [*((f.name, sha256(f.read_bytes()).hexdigest()) for f in used if f.is_file()), *found.skipped]


def read_subject_photos(folder: str, files: str, settings: PhotoSettings) -> Made:
    """The photos as the node gives them. Raises UserError as `find_photos` and `subject_photos`."""
    from ...dpo_core.report.plots.photo_sheet import photo_sheet
    from ...dpo_core.report.plots.theme import theme

    found = subject_photos(find_photos(folder, files), settings)
    unused = files.split() and folder != FILES_BELOW
    more = [f"the folder {folder} is chosen, so the names in files are not used"] if unused else []
    names = tuple(photo.name for photo in found.photos)
    said = "\n".join(_sentence(line, names) for line in [*_lines(found), *more])
    with theme("dark"):
        sheet = photo_sheet(found)
    return Made(_tensor(found.references), _tensor(found.masks), _tensor(found.held_out), sheet, said)


def _tensor(pixels: np.ndarray | None) -> Any:
    """uint8 -> float32, 0..1."""
    import torch

    return None if pixels is None else torch.from_numpy(pixels).float() / 255


def _sentence(line: str, names: tuple[str, ...]) -> str:
    """The line as a sentence; a file's name at its beginning stays as it is."""
    first = line if line.startswith(names) else line[0].upper() + line[1:]
    return first if first.endswith((".", "?")) else f"{first}."


def _lines(found: SubjectPhotos) -> list[str]:
    """What is said of the photos: how many, held out, masks, skipped files, and what needs a look."""
    held = [photo.name for photo in found.photos if photo.held_out]
    size, count = found.settings.size, len(found.photos)
    parts = [_counted(count, "photo") + f" of {size}x{size}: {_counted(count - len(held), 'reference')}"]
    lines = [", ".join([*parts, *([f"held out: {', '.join(held)}"] if held else [])])]
    lines += _masks(found)
    if found.skipped:
        lines.append(f"skipped: {by_reason(found.skipped)}")
    lines += found.notes
    if [photo.name for photo in found.photos] == [EXAMPLE]:
        lines.append(f"{EXAMPLE} is the picture that ComfyUI comes with. Add photos of your own subject in its place")
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _masks(found: SubjectPhotos) -> list[str]:
    """What masks there are, and how photos without one count."""
    shown = [photo for photo in found.photos if not photo.held_out]
    masked = [photo for photo in shown if photo.mask is not None]
    if not masked:
        return ["no masks: fidelity compares photos as a whole"]
    each = [f"{percent(share(p.mask))} of {p.name} ({p.source})" for p in masked if p.mask is not None]
    lines = [f"masks cover {', '.join(each)}"]
    if whole := [photo.name for photo in shown if photo.mask is None]:
        lines.append(f"without a mask, so all of the photo counts as the subject: {', '.join(whole)}")
    if any(photo.mask is not None and shows(photo.mask) != "subject" for photo in masked):
        lines.append(
            "white is the subject in these masks, but some touch the borders as much as they fill the middle: set "
            "mask_shows of Concept to subject"
        )
    return lines
