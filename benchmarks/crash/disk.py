"""What a disk may have forgotten after a power loss: a journal of flushes, and the removal of what was not flushed.

Model (POSIX): the content of a file survives when it was flushed (fsync) after its last write; the name of a file or
folder survives when the folder that holds it was flushed after the rename or mkdir. A file that was renamed over an
older one whose folder was not flushed is the older one again. SQLite's own files are left as they are: it flushes by
itself, outside Python, and rows that survive while the files they name do not are the worst case.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path


def record(journal: int, shelf: Path, pause: float = 0.0) -> None:
    """From here on, write every os.fsync, os.replace and os.mkdir of this process to the open file `journal`.

    pause: seconds to wait before each fsync, so that more kills fall between a write or a rename and its flush.

    One JSON line each, by one os.write, so that a SIGKILL loses no line of a finished call. Files that a rename
    replaces are hard-linked into `shelf` first. Linux only: paths of open files are read from /proc/self/fd.
    """
    fsync, replace, mkdir = os.fsync, os.replace, os.mkdir
    count = 0

    def tell(**event: object) -> None:
        os.write(journal, (json.dumps(event) + "\n").encode())

    def recorded_fsync(handle: int) -> None:
        time.sleep(pause)
        fsync(handle)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            tell(what="folder", path=os.readlink(f"/proc/self/fd/{handle}"))
        else:
            tell(what="content", inode=found.st_ino, written=found.st_mtime_ns)

    def recorded_replace(source, target) -> None:
        nonlocal count
        kept, target = "", os.path.abspath(target)
        if os.path.exists(target):
            count += 1
            kept = str(shelf / f"{os.getpid()}_{count}")
            os.link(target, kept)
        tell(what="name", path=target, before=kept)  # before the call: a kill in between may leave either name
        replace(source, target)

    def recorded_mkdir(path, *args, **more) -> None:
        mkdir(path, *args, **more)
        tell(what="name", path=os.path.abspath(path), before="")

    os.fsync, os.replace, os.mkdir = recorded_fsync, recorded_replace, recorded_mkdir
    if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10's Path keeps the functions it was made with
        accessor.replace, accessor.mkdir = staticmethod(recorded_replace), staticmethod(recorded_mkdir)


def events(journal: Path) -> list[dict]:
    """The journal's events in order; a line that a kill cut off is left out."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def unflushed_names(journal: Iterable[dict]) -> dict[str, str]:
    """Paths whose name may be lost, each with the file that it replaced on disk ("" for none), innermost last."""
    lost: dict[str, str] = {}
    for event in journal:
        if event["what"] == "name":
            lost.setdefault(event["path"], event["before"])
        elif event["what"] == "folder":
            lost = {path: before for path, before in lost.items() if os.path.dirname(path) != event["path"]}
    return lost


def flushed_contents(journal: Iterable[dict]) -> set[tuple[int, int]]:
    """(inode, time of the last write in ns) of every file whose content was flushed."""
    return {(event["inode"], event["written"]) for event in journal if event["what"] == "content"}


def lose_power(folder: Path, journal: list[dict]) -> list[str]:
    """Remove from a run folder what the journal does not show as flushed; return the names of what was lost."""
    lost = []
    for path, before in unflushed_names(journal).items():
        if not os.path.lexists(path) or Path(path) == folder or folder not in Path(path).parents:
            continue
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        if before:
            os.link(before, path)
        lost.append(os.path.relpath(path, folder))
    flushed = flushed_contents(journal)
    for file in sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith("records.sqlite")):
        found = file.stat()
        if (found.st_ino, found.st_mtime_ns) not in flushed:
            lost.append(str(file.relative_to(folder)))
            # Half of it: neither absent nor whole is the worst that a reader can meet.
            os.truncate(file, found.st_size // 2)
    return lost
