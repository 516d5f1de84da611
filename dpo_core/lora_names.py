"""Reads a list of LoRAs as a person writes it: one name or pattern a line, with a strength if it is not 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from .errors import UserError
from .settings.words import in_words

HIGHEST = 4.0
"""Highest strength, as of the strength sweep."""
MOST = 60
"""The most LoRAs of one comparison: a pattern that matches a whole collection is a mistake of days."""
_STRENGTH = re.compile(r"(?P<name>.*?)\s*:\s*(?P<strength>[^:/\\]*)")
_COMMENT = "#"


def chosen_loras(text: str, known: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """The LoRAs that a text names: (name as in `known`, strength), line by line, each once.

    A line is a name, with or without its folder and ".safetensors", or a pattern with *, ? and [...]; ":0.8" at its end
    is the strength. Names of one pattern come in natural order ("epoch 2" before "epoch 10"). Empty lines and lines
    from # on are left out. Raises UserError for a line that names nothing (with the nearest names), a wrong strength,
    an empty text, and more than `MOST` LoRAs.
    """
    found: dict[tuple[str, float], None] = {}
    for line in text.splitlines():
        wanted, _, _ = line.partition(_COMMENT)
        if wanted := wanted.strip():
            name, strength = _line(wanted, known)
            found |= dict.fromkeys((match, strength) for match in _matches(name, known))
    if not found:
        raise UserError(
            "loras is empty: write one LoRA a line, by its name in ComfyUI's loras folder or by a pattern such as "
            "my_subject-*.safetensors."
        )
    if len(found) > MOST:
        raise UserError(
            f"loras names {len(found)} LoRAs, and at most {MOST} are compared at once. Use a narrower pattern, such as "
            "my_subject-*.safetensors."
        )
    return tuple(found)


def _line(wanted: str, known: Sequence[str]) -> tuple[str, float]:
    """Name or pattern, and strength. A known name that holds a colon is a name."""
    split = _STRENGTH.fullmatch(wanted)
    if wanted in known or split is None:
        return wanted, 1.0
    try:
        strength = float(split["strength"])
    except ValueError:
        strength = float("nan")
    if not 0 < strength <= HIGHEST:
        raise UserError(
            f"loras: the strength in {in_words(wanted)} must be a number above 0 and up to {HIGHEST:g}, such as "
            "my_subject.safetensors:0.8. (Strength 0, the model without a LoRA, is always compared.)"
        )
    return split["name"], strength


def _matches(wanted: str, known: Sequence[str]) -> list[str]:
    """The known names that a line means, in natural order."""
    plain = {name: name.replace("\\", "/") for name in known}
    asked = wanted.replace("\\", "/")
    exact = [name for name, path in plain.items() if asked in (path, path.removesuffix(".safetensors"))]
    if exact:
        return exact
    whole = "/" in asked
    paths = {name: path if whole else path.rpartition("/")[2] for name, path in plain.items()}
    patterns = (asked, f"{asked}.safetensors")
    found = [name for name, path in paths.items() if any(fnmatchcase(path, p) for p in patterns)]
    if not found:
        raise UserError(f"loras: no LoRA is named {in_words(wanted)}{_nearest(asked, plain)}.")
    return sorted(found, key=_natural)


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key in which numbers count by their value."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _nearest(asked: str, known: dict[str, str]) -> str:
    """The names that a wrong one may have meant, in words."""
    if not known:
        return ": ComfyUI's loras folder holds none. Put the files there and press R to refresh the list"
    by_end = {path.rpartition("/")[2].removesuffix(".safetensors"): name for name, path in known.items()}
    stem = re.sub(r"[*?]|\.safetensors$", "", asked.rpartition("/")[2])
    near = [by_end[end] for end in get_close_matches(stem, by_end, 3, 0.4)]
    if not near:
        return f". ComfyUI's loras folder holds {len(known)} others; press R after adding files"
    return f". The nearest names are {', '.join(near)}; press R after adding files"
