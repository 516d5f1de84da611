"""Says what is wrong with a safetensors file before a library opens it: a Git LFS pointer, or a cut download."""

from __future__ import annotations

import json
from pathlib import Path

_LFS = b"version https://git-lfs"
_LONGEST_HEADER = 100_000_000
"""Bytes; safetensors itself refuses longer headers."""


def read_header(path: Path) -> dict | None:
    """The JSON header of a safetensors file: dtype, shape and data_offsets by tensor name; None if there is none.

    The format: 8 bytes little-endian length, the header, then the data (github.com/huggingface/safetensors).
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LONGEST_HEADER:
            return None
        try:
            header = json.loads(file.read(length))
        except ValueError:  # cut inside the header, or another format
            return None
    return header if isinstance(header, dict) else None


def damage(path: Path) -> str | None:
    """What is wrong with a weights file, with a remedy, as one sentence that names it; None if nothing is seen.

    Only the header is read, so this is quick for files of any size. Raises OSError for a file that cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_LFS))
    if start == _LFS:
        return (
            f"{path} is a Git LFS pointer ({size} bytes of text), not the weights. Fetch the file itself: `git lfs "
            "pull`, or download it again."
        )
    header = read_header(path)
    if header is None:
        what = "is empty" if size == 0 else "has no safetensors header"
        return f"{path} is not a readable safetensors file (it {what}). Download or save it again."
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    with path.open("rb") as file:
        needed = 8 + int.from_bytes(file.read(8), "little") + max(ends, default=0)
    if size < needed:
        return (
            f"{path} is not a readable safetensors file: it is cut off ({size} of {needed} bytes). Download or save it "
            "again."
        )
    return None
