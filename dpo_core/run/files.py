"""Writes files atomically: a file is either complete or absent."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from ..errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write to; rename it to `path` on success, remove it on failure.

    Afterwards the file has the permissions that the umask gives to new files, and is flushed to disk under its name, so
    a record that names it may be committed. Raises UserError when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.part{path.suffix}")
    try:
        _make_folder(path.parent)
        yield beside
        if os.name != "nt":  # safetensors creates files that only their owner can read
            os.chmod(beside, 0o666 & ~_umask())
        _to_disk(beside)
        os.replace(beside, path)
        if os.name != "nt":  # Windows cannot flush a folder
            _to_disk(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors has its own exception for a full disk
        raise UserError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}. Free disk space or choose another "
            "output folder. Finished work is kept; run the same command again to continue."
        ) from error
    finally:
        # If the folder itself is invalid there is nothing to remove, and this error must not hide the first one.
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _umask() -> int:
    """The permission bits that this process takes from new files."""
    with suppress(OSError, StopIteration), open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    mask = os.umask(0o077)  # other systems tell it only in exchange for another
    os.umask(mask)
    return mask


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, each flushed to disk in its parent: else a power loss could take it away again
    with all that was flushed inside.
    """
    if path.is_dir():
        return
    if path.parent != path:
        _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    if os.name != "nt":
        _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write UTF-8 JSON atomically. Raises ValueError for NaN, which is not JSON."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
