"""LoRA files in ComfyUI's loras folders, as its own Load LoRA lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...dpo_core.errors import UserError
from ...dpo_core.lora_names import chosen_loras
from ..sockets import NONE


def lora_names() -> list[str]:
    """The names that Load LoRA lists."""
    import folder_paths

    return folder_paths.get_filename_list("loras")


def saving_folder(name: str) -> Path:
    """A folder of the first loras folder, where new files go."""
    import folder_paths

    return Path(folder_paths.get_folder_paths("loras")[0]) / name


def names_of(files: Sequence[Path]) -> list[str]:
    """The names that Load LoRA lists for files of the first loras folder."""
    root = saving_folder(".")
    return [str(file.relative_to(root)) for file in files]


def lora_path(name: str) -> Path:
    """The file of a name; raises UserError for one that is gone, or no safetensors file."""
    import folder_paths

    path = folder_paths.get_full_path("loras", name)
    if path is None:
        raise UserError(f"LoRA {name} is no longer in ComfyUI's loras folder. Press R to refresh the list.")
    if Path(path).suffix.lower() not in (".safetensors", ".sft"):
        raise UserError(
            f"LoRA {name} is a {Path(path).suffix} file. Only .safetensors is loaded, because a pickle can run code. "
            "Save the LoRA as .safetensors, or leave it out."
        )
    return Path(path)


def chosen_files(text: str) -> list[tuple[str, Path, float]]:
    """The LoRAs that a text names, see `chosen_loras`: (name, file, strength). Raises UserError as that does."""
    return [(name, lora_path(name), strength) for name, strength in chosen_loras(text, lora_names())]


def check_loras(text: str) -> str | None:
    """Why the LoRAs of a text cannot be compared, or None; no file is opened."""
    try:
        chosen_files(text)
    except UserError as wrong:
        return str(wrong)
    return None


def check_candidate_lora(name: str | None, steps: int | None) -> str | None:
    """Why a LoRA for candidates cannot be used with this number of candidate_steps, or None; it is not opened.

    None for what is not known yet, because it comes by a link.
    """
    if name in (None, NONE):
        return None
    if steps == 0:
        return (
            f"candidate_lora is {name}, but candidate_steps is 0, so candidates would take the usual steps with a LoRA "
            "for few: set candidate_steps to what the LoRA is made for, mostly 4 or 8, or candidate_lora to none."
        )
    try:
        lora_path(name)
    except UserError as wrong:
        return str(wrong)
    return None


def stamp(name: str | None) -> tuple[int, int] | None:
    """Size (bytes) and time of change (nanoseconds) of a LoRA; None for none, and for one that is gone."""
    if name in (None, NONE):
        return None
    try:
        found = lora_path(name).stat()
    except (UserError, OSError):
        return None
    return found.st_size, found.st_mtime_ns


def stamps(text: str) -> list[tuple[str, float, int, int]]:
    """Name, strength, size (bytes) and time of change (nanoseconds) of each LoRA; empty for a wrong text.

    It is part of the node's cache key: a pattern may match other files later, and a file may be replaced.
    """
    if check_loras(text):
        return []
    return [(name, strength, (s := path.stat()).st_size, s.st_mtime_ns) for name, path, strength in chosen_files(text)]
