"""Files that are either whole or not there."""

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
    """Give a temporary sibling to write to; rename it over `path` on success, remove it on failure.

    When this returns, the file is on the disk under its name: a record that names it may be committed. Raises UserError
    when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _to_disk(beside)
        os.replace(beside, path)
        if os.name != "nt":  # Windows has no handle of a folder to flush
            _to_disk(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk by an exception of its own
        raise UserError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}. Free disk space or choose another output folder; "
            "what was finished before is kept, and the same command goes on from there."
        ) from error
    finally:
        # Where the folder itself is wrong there is nothing to remove, and that error must not hide the first one.
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait until the file's content, or the folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write UTF-8 JSON, whole or not at all. NaN is refused (ValueError): it is not JSON."""
    with atomic_path(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), encoding="utf-8")
