"""Scorer weights in models/dreambooth_dpo_scorers, a model folder that the pack registers with ComfyUI."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...dpo_core.errors import UserError
from ...metrics.file_kinds import kind_of_file
from ..sockets import QUESTIONS

FOLDER = "dreambooth_dpo_scorers"
_TOYBOX = {"toybox reward": "reward", "toybox judge": "judge"}


def roots() -> list[Path]:
    """The folders for scorers: models/dreambooth_dpo_scorers and those named in extra_model_paths.yaml."""
    import folder_paths

    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER), is_default=True)
    return [Path(p) for p in folder_paths.get_folder_paths(FOLDER)]


def scorer_names() -> list[str]:
    """Names of all scorers: folders with a config, and single .safetensors files."""
    found = set()
    for root in roots():
        for entry in sorted(root.iterdir()) if root.is_dir() else []:
            if (
                entry.suffix == ".safetensors"
                or (entry / "open_clip_config.json").is_file()
                or (entry / "config.json").is_file()
            ):
                found.add(entry.name)
    return sorted(found)


def check_file(name: str) -> str | None:
    """Why there is no scorer of this name, or None if there is one."""
    if name in _TOYBOX or name == QUESTIONS:
        return None
    if name not in scorer_names():
        return (
            f"scorer {name!r} was not found. Put a folder of open_clip, CLIP, SigLIP or DINOv2 (config and "
            f"safetensors weights), or one .safetensors file, under {roots()[0]}, and press R to refresh the list."
        )
    if name.endswith(".safetensors") and (kind := kind_of_file(_path(name))):
        return (
            f"scorer {name!r} is {kind}, which cannot score pictures. Choose an open_clip or DINOv2 folder, or the "
            "single file of an image-text model of open_clip."
        )
    return None


def check_scorer(name: str, architecture: str) -> str | None:
    """Why this choice cannot be loaded, or None if it can."""
    if name not in _TOYBOX and not check_file(name) and name.endswith(".safetensors") and not architecture:
        return (
            f"{name} is a single file, which does not contain its architecture: write open_clip's name for it into "
            "architecture, e.g. ViT-B-32-quickgelu."
        )
    return check_file(name)


def stamp(name: str) -> list[tuple[str, int, int]]:
    """Name, size (bytes) and time of change (nanoseconds) of each file of a scorer; empty if there is none.

    It is part of the node's cache key, so that a file replaced on disk is loaded again.
    """
    if name in _TOYBOX or name not in scorer_names():
        return []
    path = _path(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [(p.relative_to(path.parent).as_posix(), (s := p.stat()).st_size, s.st_mtime_ns) for p in files]


def _path(name: str) -> Path:
    return next(root / name for root in roots() if (root / name).exists())


def load_scorer(
    name: str, architecture: str, augment: bool = False, fidelity: str = "picture", clip: Any = None
) -> Any:
    """The chosen scorer under ComfyUI's memory management; the last few are cached, by the state of their files.

    augment: embed the mean over four views of a picture. fidelity: "picture" or "patches". clip: the CLIP that answers
    questions, for that choice alone. Raises UserError that says what is missing, or given beside a scorer that does not
    use it, or that the model has no patches.
    """
    from ...metrics.errors import MetricsError
    from ...metrics.model_files import without_hub
    from ...metrics.patches import ByPatches

    if name == QUESTIONS:
        return _asked(clip, augment, fidelity)
    if clip is not None:
        raise UserError(f"scorer is {name!r}, which uses no clip: choose {QUESTIONS!r}, or disconnect clip.")
    if wrong := check_scorer(name, architecture):
        raise UserError(wrong)
    files = tuple(stamp(name))
    try:
        loaded = (_augmented if augment else _load)(name, architecture, files)
        return ByPatches(loaded) if fidelity == "patches" else loaded
    except MetricsError as error:
        raise UserError(f"scorer {name!r}: {without_hub(str(error))}") from error


def _asked(clip: Any, augment: bool, fidelity: str) -> Any:
    """The scorer by questions to a CLIP. Raises UserError without one, and for what needs embeddings or patches."""
    from .answers import ClipAnswerer

    if clip is None:
        raise UserError(
            f"scorer is {QUESTIONS!r}, and no clip is connected: connect a vision-language model that generates text, "
            "such as Qwen3-VL, or choose another scorer."
        )
    if augment:
        raise UserError(f"augment averages embeddings, and {QUESTIONS!r} has none: turn augment off.")
    if fidelity != "picture":
        raise UserError(f"fidelity is {fidelity}, and {QUESTIONS!r} does not score fidelity: set it to picture.")
    return ClipAnswerer(clip)


@lru_cache(maxsize=4)
def _augmented(name: str, architecture: str, files: tuple) -> Any:
    """Cached like the plain ones, because it caches the embeddings of the last pictures."""
    from ...metrics.augmented import AugmentedEmbedder

    return AugmentedEmbedder(_load(name, architecture, files))


@lru_cache(maxsize=4)
def _load(name: str, architecture: str, files: tuple) -> Any:
    import torch

    from ...dpo_core.backends.comfyui import ResidentEmbedder
    from ...metrics.embedders import load_embedder

    if name in _TOYBOX:
        from ...toybox.models import weights_folder

        source = str(weights_folder(_TOYBOX[name]))
    else:
        path = _path(name)
        # A folder names its own architecture; that of a file chosen before may still be in the hidden widget.
        source = f"{architecture}={path}" if architecture and path.is_file() else str(path)
    with torch.inference_mode(False):
        return ResidentEmbedder(load_embedder(source))
