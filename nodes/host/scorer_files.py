"""Scorer weights in models/dreambooth_dpo_scorers, a model folder that the pack registers with ComfyUI."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...dpo_core.errors import UserError

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


def check_scorer(name: str, architecture: str) -> str | None:
    """Why this choice cannot be loaded, or None if it can."""
    if name in _TOYBOX:
        return None
    if name not in scorer_names():
        where = roots()[0]
        return (
            f"scorer {name!r} was not found. Put an open_clip or DINOv2 folder (config and safetensors weights), or "
            f"one .safetensors file, under {where}, and press R to refresh the list."
        )
    if name.endswith(".safetensors") and not architecture:
        return (
            f"{name} is a single file, which does not contain its architecture: write open_clip's name for it into "
            "architecture, e.g. ViT-B-32-quickgelu."
        )
    return None


def load_scorer(name: str, architecture: str, augment: bool = False) -> Any:
    """The chosen scorer under ComfyUI's memory management; the last few are cached.

    augment: embed the mean over four views of a picture. Raises UserError or MetricsError that says what is missing.
    """
    if wrong := check_scorer(name, architecture):
        raise UserError(wrong)
    return _augmented(name, architecture) if augment else _load(name, architecture)


@lru_cache(maxsize=4)
def _augmented(name: str, architecture: str) -> Any:
    """Cached like the plain ones, because it caches the embeddings of the last pictures."""
    from ...metrics.augmented import AugmentedEmbedder

    return AugmentedEmbedder(_load(name, architecture))


@lru_cache(maxsize=4)
def _load(name: str, architecture: str) -> Any:
    import torch

    from ...dpo_core.backends.comfyui import ResidentEmbedder
    from ...metrics.embedders import load_embedder

    if name in _TOYBOX:
        from ...toybox.models import weights_folder

        source = str(weights_folder(_TOYBOX[name]))
    else:
        path = next(root / name for root in roots() if (root / name).exists())
        source = f"{architecture}={path}" if architecture else str(path)
    with torch.inference_mode(False):
        return ResidentEmbedder(load_embedder(source))
