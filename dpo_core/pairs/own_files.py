"""A person's own pairs as files: folders winner/ and loser/, or a CSV; found and checked, nothing is encoded here."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..yaml_text import read_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
"""Pillow's names of the formats."""
COLUMNS = ("prompt", "winner", "loser")
MOST = 10_000
"""Most pairs of one import."""
SIDES = ("winner", "loser")


@dataclass(frozen=True)
class OwnPair:
    """One pair: its prompt and its two pictures."""

    prompt: str
    winner: Path
    loser: Path


@dataclass(frozen=True)
class OwnPairs:
    """Checked pairs; `marks`: hash of each pair's prompt and files; `sizes`: of winner and loser, (width, height)."""

    pairs: tuple[OwnPair, ...]
    marks: tuple[str, ...]
    sizes: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    @property
    def mark(self) -> str:
        """Hash of all pairs, 12 hex digits."""
        return hashlib.sha256("\n".join(self.marks).encode()).hexdigest()[:12]

    def sentence(self, width: int, height: int) -> str:
        """How many pairs, and of which sizes, in words."""
        count = len(self.pairs)
        listed = [size for both in self.sizes for size in both]
        other = sorted({size for size in listed if size != (width, height)})
        said = f"{count} own pair{'s' * (count > 1)}"
        if not other:
            return f"{said}, all of {width}x{height}."
        named = ", ".join(f"{w}x{h}" for w, h in other[:4]) + (f" and {len(other) - 4} more sizes" if other[4:] else "")
        small = sum(size[0] < width or size[1] < height for size in listed)
        larger = f"; {small} picture{'s' * (small > 1)} enlarged" if small else ""
        changed = sum(size != (width, height) for size in listed)
        return f"{said}; {changed} of {len(listed)} pictures cropped and resized to {width}x{height}: {named}{larger}."


def find_own_pairs(source: Path, prompt: str = "") -> OwnPairs:
    """The pairs of a folder with winner/ and loser/, or of a CSV with the columns prompt, winner, loser.

    Folders: two files of one name (without suffix) are a pair. Its prompt is the text of name.txt in winner/, in
    loser/ or beside both folders, else `prompt`. CSV: UTF-8, paths relative to its folder, out of which they must not
    lead. Raises UserError, with name, reason and remedy, for what is missing, has no partner or no prompt, is no PNG,
    JPEG or WebP, or is the same picture twice.
    """
    if source.is_dir():
        found = _of_folders(source, " ".join(prompt.split()))
    elif source.is_file() and source.suffix.lower() == ".csv":
        found = _of_csv(source)
    else:
        raise UserError(
            f"own pairs {source} are neither a folder nor a .csv file. Give a folder that holds the folders winner and "
            "loser, or a CSV with the columns prompt, winner, loser."
        )
    if len(found) > MOST:
        raise UserError(f"{source} holds {len(found)} pairs, more than {MOST}. Split it, or choose the best ones.")
    checked = [_checked(pair) for pair in found]
    return OwnPairs(tuple(found), tuple(mark for mark, _ in checked), tuple(sizes for _, sizes in checked))


# --- folders ---


def _of_folders(source: Path, prompt: str) -> list[OwnPair]:
    sides = [_pictures(source, side) for side in SIDES]
    for (one, there), (other, partners) in (zip(SIDES, sides, strict=True), zip(SIDES[::-1], sides[::-1], strict=True)):
        if single := sorted(there.keys() - partners.keys()):
            name = there[single[0]].name
            raise UserError(
                f"{one}/{name} has no picture of that name in {source / other}. Add {other}/{name}, or take it out."
            )
    return [OwnPair(_prompt_of(source, stem, prompt), *(side[stem] for side in sides)) for stem in sorted(sides[0])]


def _pictures(source: Path, side: str) -> dict[str, Path]:
    """The pictures of one folder by their name without suffix."""
    folder = source / side
    if not folder.is_dir():
        raise UserError(
            f"{source} has no folder {side}. Own pairs need two folders, winner and loser, with equal file names."
        )
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() == ".txt" or file.name.lower() in ("thumbs.db",):
            continue
        if file.suffix.lower() not in SUFFIXES or not file.is_file():
            raise UserError(f"{file} is no PNG, JPEG or WebP picture. Convert it, or take it out of the folder.")
        if file.stem in found:
            raise UserError(
                f"{folder} holds {found[file.stem].name} and {file.name}: two pictures of one name. Rename one of them."
            )
        found[file.stem] = _inside(file, source)
    if not found:
        raise UserError(f"{folder} holds no pictures. Put PNG, JPEG or WebP files there.")
    return found


def _prompt_of(source: Path, stem: str, prompt: str) -> str:
    texts: dict[str, str] = {}
    for folder in (*(source / side for side in SIDES), source):
        file = folder / f"{stem}.txt"
        if file.is_file():
            text = " ".join(read_text(_inside(file, source), "prompt file").split())
            texts.setdefault(text, str(file))
    if len(texts) > 1:
        raise UserError(f"{' and '.join(texts.values())} give two prompts for one pair. Make them equal.")
    found = next(iter(texts), "") or prompt
    if not found:
        raise UserError(
            f"the pair {stem} has no prompt. Write it into {source / 'winner' / (stem + '.txt')}, or give one prompt "
            "for all pairs."
        )
    return found


# --- CSV ---


def _of_csv(source: Path) -> list[OwnPair]:
    rows = csv.DictReader(read_text(source, "CSV of own pairs").lstrip("\ufeff").splitlines())
    names = [name.strip().lower() for name in rows.fieldnames or ()]
    if missing := [name for name in COLUMNS if name not in names]:
        raise UserError(
            f"{source} has no column {missing[0]!r}; its first line is {','.join(names) or 'empty'}. Begin the file "
            "with the line prompt,winner,loser."
        )
    rows.fieldnames = names
    found = [_of_row(source, rows.line_num, row) for row in rows]
    if not found:
        raise UserError(f"{source} holds no pairs below its first line. Add a line for each pair.")
    return found


def _of_row(source: Path, line: int, row: dict[str, str | None]) -> OwnPair:
    values = {name: " ".join((row.get(name) or "").split()) for name in COLUMNS}
    if empty := [name for name, value in values.items() if not value]:
        raise UserError(f"{source}, line {line}: {empty[0]} is empty. Fill it in, or remove the line.")
    files = []
    for side in SIDES:
        file = source.parent / values[side]
        if Path(values[side]).suffix.lower() not in SUFFIXES:
            raise UserError(f"{source}, line {line}: {values[side]} is no PNG, JPEG or WebP picture. Convert it.")
        inside = _inside(file, source.parent)
        if not inside.is_file():
            raise UserError(f"{source}, line {line}: {file} does not exist. Correct the path; it starts at the CSV.")
        files.append(inside)
    return OwnPair(values["prompt"], *files)


# --- each file ---


def _inside(file: Path, folder: Path) -> Path:
    """The file, links followed. Raises UserError where it lies outside of `folder`."""
    resolved = file.resolve()
    if not resolved.is_relative_to(folder.resolve()):
        raise UserError(f"{file} leads out of {folder}. Copy the file into that folder.")
    return resolved


def _checked(pair: OwnPair) -> tuple[str, tuple[tuple[int, int], tuple[int, int]]]:
    """Hash of a pair, and the sizes of its pictures."""
    content = [file.read_bytes() for file in (pair.winner, pair.loser)]
    if content[0] == content[1]:
        raise UserError(f"{pair.winner} and {pair.loser} are the same file: neither is better. Take the pair out.")
    parts = [pair.prompt.encode(), *(hashlib.sha256(c).digest() for c in content)]
    sizes = tuple(_size(file) for file in (pair.winner, pair.loser))
    return hashlib.sha256(b"\n".join(parts)).hexdigest(), sizes


def _size(file: Path) -> tuple[int, int]:
    """Size of a picture, upright. Raises UserError for a file whose content is another format, or broken."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=FORMATS) as image:
            return ImageOps.exif_transpose(image).size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{file} cannot be read as PNG, JPEG or WebP ({error}). Save it again, or take it out."
        ) from error


def doubts(pairs: Sequence[OwnPair], subject: str) -> list[str]:
    """What a user should know of the prompts, in sentences. subject: as prompts name it."""
    without = [pair.prompt for pair in pairs if subject not in pair.prompt]
    if not without:
        return []
    return [
        f"{len(without)} of {len(pairs)} own pairs have a prompt that does not name {subject!r}, as {without[0]!r}."
    ]
