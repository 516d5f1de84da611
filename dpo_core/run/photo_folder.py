"""Finds the photos of a folder, and says of every other file why it is none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from ..errors import UserError
from .picture_file import HEIF, avif, heif

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of files that are always read; those of HEIF and .avif where Pillow, or a plugin of it, can."""
USUAL = (".png", ".jpg", ".webp", ".bmp")
"""Suffixes that messages name."""
_MASK = re.compile(r"^(?P<photo>.+?)(?:[-_. ]?masklabel|[-_. ](?:mask|matte))$", re.IGNORECASE)
_CONDITION = re.compile(r"^(?P<photo>.+)-condlabel$", re.IGNORECASE)
_REPEATS = re.compile(r"^\d+_.+")
_MASK_FOLDERS = ("masks", "mask", "_masks", "masklabels")
_RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".raw")
_OTHER = (".svg", ".psd", ".jxl", ".jp2", ".tga", ".ppm", ".pgm", ".ico", ".exr", ".hdr", ".eps", ".pdf", ".xcf")
_FILMS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_CAPTIONS = (".txt", ".caption", ".cap", ".json")
_SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db")
_MOST_NAMES = 3


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder in order of name; masks beside them; files that are not used, each with its reason."""

    photos: tuple[Path, ...]
    masks: dict[Path, Path]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def twins(self) -> dict[Path, Path]:
        """Photos that are the same file as an earlier one, byte by byte, each with that one."""
        first: dict[str, Path] = {}
        found = {}
        for photo in self.photos:
            try:
                digest = sha256(photo.read_bytes()).hexdigest()
            except OSError:
                continue  # named when the photo is opened
            if (same := first.setdefault(digest, photo)) is not photo:
                found[photo] = same
        return found

    def said(self, what: str) -> list[str]:
        """Sentences for the user; none where every file of the folder is a photo."""
        lines = [
            *self.notes,
            *(
                f"{a.name} is the same file as {b.name}: it counts twice, and adds nothing"
                for a, b in self.twins.items()
            ),
        ]
        if self.skipped:
            noun = what.removeprefix("reference ") if len(self.photos) > 1 else "photo"
            lines.insert(0, f"using {len(self.photos)} {noun}, skipped: {by_reason(self.skipped)}")
        return lines


def by_reason(skipped: Iterable[tuple[str, str]]) -> str:
    """The names with their reasons; of more than 3 files of one reason, the first and the count of the others."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped:
        names.setdefault(reason, []).append(name)
    parts = []
    for reason, found in names.items():
        more = len(found) - _MOST_NAMES
        listed = ", ".join(found) if more <= 0 else f"{', '.join(found[:_MOST_NAMES])} and {more} more"
        parts.append(f"{listed} ({reason})")
    return ", ".join(parts)


def look(folder: Path, what: str) -> PhotoFolder:
    """Sort the files of a folder into photos, masks beside them, and others.

    what: "masks" where all pictures are masks, else a name for the photos. Understood: kohya's one folder of repeats
    ("10_sks robot") within; masks beside photos as OneTrainer (a-masklabel.png) and others (a_mask.png, a.mask.png,
    masks/a.png) name them. Raises UserError when the folder is missing or has no photo that can
    be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        why = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise UserError(f"the folder of {what} {folder} {why}. Give a folder with {', '.join(USUAL)} files.")
    inside = _only_repeats(folder)
    if inside is None:
        return _sorted_out(folder, what, ())
    note = f"{what} are taken from {inside.name} (a folder as kohya's trainers use it; its repeats do not count here)"
    return _sorted_out(inside, what, (note,))


def chosen(files: Iterable[Path]) -> PhotoFolder:
    """Sort files that were named one by one, of any folders, as `look` does those of a folder, in order of name.

    There may be no photo among them. A file that is named twice counts once.
    """
    files = sorted(set(files), key=lambda f: (f.name, f))
    photos, masks, skipped = _roles([f for f in files if _readable(f) is None])
    skipped += [(f.name, _named(f, why)) for f in files if (why := _readable(f))]
    beside = {p: masks[_key(p)] for p in photos if _key(p) in masks}
    return PhotoFolder(tuple(photos), beside, tuple(skipped))


def holds_pictures(folder: Path) -> bool:
    """Whether a picture, by its suffix, lies in the folder itself."""
    return any(_readable(f) is None for f in folder.iterdir() if not f.name.startswith(".") and f.is_file())


def of_masks(folder: Path) -> bool:
    """Whether a folder has the name of one with masks beside photos."""
    return folder.name.lower() in _MASK_FOLDERS


def _key(file: Path) -> tuple[Path, str]:
    """What a photo and its mask have in common: folder and stem."""
    return file.parent, file.stem


def _roles(pictures: list[Path]) -> tuple[list[Path], dict[tuple[Path, str], Path], list[tuple[str, str]]]:
    """Pictures sorted by their names into photos, masks (by `_key` of their photo), and what is skipped."""
    known = {_key(f) for f in pictures}
    photos: list[Path] = []
    masks: dict[tuple[Path, str], Path] = {}
    skipped: list[tuple[str, str]] = []
    for file in pictures:
        of, condition = _MASK.match(file.stem), _CONDITION.match(file.stem)
        beside, within = of and (file.parent, of["photo"]), (file.parent.parent, file.stem)
        if condition and (file.parent, condition["photo"]) in known:
            skipped.append((file.name, "a conditioning picture of OneTrainer"))
        elif beside in known:
            masks[beside] = file
        elif of_masks(file.parent) and within in known:
            masks.setdefault(within, file)
        elif file.stem.lower().endswith("-masklabel"):
            skipped.append((file.name, "a mask of OneTrainer without its photo"))
        else:
            photos.append(file)
    return photos, masks, skipped


def _only_repeats(folder: Path) -> Path | None:
    """The one folder of repeats in a folder without pictures of its own. Raises UserError where there are several."""
    if any(_readable(f) is None for f in _files(folder)):
        return None
    found = [d for d in sorted(folder.iterdir()) if d.is_dir() and _REPEATS.match(d.name) and _count(d)]
    if len(found) > 1:
        listed = ", ".join(f"{d.name} ({_count(d)})" for d in found)
        raise UserError(f"the folder {folder} holds several folders of pictures: {listed}. Give one of them.")
    return found[0] if found else None


def _files(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]


def _count(folder: Path) -> int:
    return sum(_readable(f) is None for f in _files(folder))


def _readable(file: Path) -> str | None:
    """None for a picture by its suffix, else why the file is no photo."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES or (suffix in HEIF and heif()) or (suffix == ".avif" and avif()):
        return None
    if suffix in HEIF:
        return "needs pillow-heif: pip install pillow-heif, or save as JPG"
    if suffix == ".avif":
        return "needs Pillow 11.3 or newer, or pillow-avif-plugin"
    if suffix in _RAW:
        return "a camera's raw file: save it as JPG or PNG"
    if suffix in _OTHER:
        return "a format that is not read: save it as JPG or PNG"
    if suffix in _FILMS:
        return "a film, no picture"
    return "a file of the operating system" if file.name.lower() in _SYSTEM else "no picture"


def _sorted_out(folder: Path, what: str, notes: tuple[str, ...]) -> PhotoFolder:
    skipped = [(f.name, why) for f in sorted(folder.iterdir()) if (why := _hidden(f))]
    files = _files(folder)
    pictures = [f for f in files if _readable(f) is None]
    photos, masks, unused = (pictures, {}, []) if what == "masks" else _roles(pictures)
    skipped += unused
    known = {f.stem for f in files if f.suffix.lower() not in _CAPTIONS}
    for file in files:
        if why := _readable(file):
            caption = file.suffix.lower() in _CAPTIONS and file.stem in known
            why = "a caption: prompts come from the prompt file" if caption else _named(file, why)
            skipped.append((file.name, why))
    for inner in sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")):
        if of_masks(inner) and what != "masks":
            found = {(folder, f.stem): f for f in _files(inner) if _readable(f) is None}
            masks = found | masks
        elif count := _count(inner):
            skipped.append((f"{inner.name}/", f"a folder of {count} pictures: folders within are not read"))
        else:
            skipped.append((f"{inner.name}/", "a folder"))
    if not photos:
        raise UserError(_none(folder, what, skipped))
    return PhotoFolder(
        tuple(photos),
        {p: masks[_key(p)] for p in photos if _key(p) in masks},
        tuple(skipped),
        notes,
    )


def _hidden(file: Path) -> str | None:
    if not file.name.startswith("."):
        return None
    return "still in iCloud: download it" if file.suffix == ".icloud" else "hidden"


def _named(file: Path, why: str) -> str:
    """The reason, with what the file holds where that is a picture under another suffix."""
    if why != "no picture":
        return why
    from PIL import Image

    try:
        with Image.open(file) as image:
            return f"a {image.format} picture without its suffix: rename it to {file.stem}.{image.format.lower()}"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return why


def _none(folder: Path, what: str, skipped: list[tuple[str, str]]) -> str:
    inner = [d for d in sorted(folder.rglob("*")) if d.is_dir() and _count(d)][:_MOST_NAMES]
    if inner:
        listed = ", ".join(f"{d} ({_count(d)})" for d in inner)
        return f"the folder {folder} holds no {what}, but folders within hold pictures: {listed}. Give one of those."
    there = f" There is: {by_reason(skipped)}." if skipped else ""
    return (
        f"the folder {folder} holds no {what}.{there} Put at least one {', '.join(USUAL)} file there; three to five "
        "are usual."
    )
