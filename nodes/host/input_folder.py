"""ComfyUI's input folder: names that lie inside it, and its folders that hold pictures."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from ...dpo_core.run.photo_folder import holds_pictures, of_masks

_DEEP, _MOST = 3, 500
"""How deep folders are looked for, and how many are offered."""


def base() -> Path:
    """The input folder, resolved."""
    import folder_paths

    return Path(folder_paths.get_input_directory()).resolve()


def inside(name: str) -> Path | None:
    """The path of a name inside the input folder, which need not exist; None for any other.

    Refused: "", absolute names, those with a drive, that lead out of the folder by ".." or a link, or that no file can
    have. Names with \\ are read as on Windows, unless there is a file of that very name.
    """
    top = base()
    if not name.strip() or PureWindowsPath(name).drive or name.startswith(("/", "\\")):
        return None
    try:
        path = (top / name).resolve()
        if "\\" in name and not path.exists():
            path = (top / name.replace("\\", "/")).resolve()
        path.exists()  # raises for a name that is too long
    except (ValueError, OSError):
        return None
    return path if path != top and path.is_relative_to(top) else None


def picture_folders() -> list[str]:
    """The folders inside the input folder that hold pictures, with / between them, in order of name.

    Hidden ones and those of masks beside photos are left out.
    """
    top = base()
    found: list[str] = []
    waiting = [top] if top.is_dir() else []
    while waiting and len(found) < _MOST:
        folder = waiting.pop()
        try:
            inner = [d for d in folder.iterdir() if d.is_dir() and not d.name.startswith(".")]
            if folder != top and holds_pictures(folder):
                found.append(folder.relative_to(top).as_posix())
        except OSError:  # not readable for this user, or gone by now
            continue
        deep = len(folder.relative_to(top).parts)
        if deep < _DEEP:
            waiting += [d for d in sorted(inner, reverse=True) if not of_masks(d) and d.resolve().is_relative_to(top)]
    return sorted(found)
