"""A pipeline without weights: the layers of a model, from its configs alone."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from .loading import ERRORS, listed_parts, model_folder, pipeline_class, refuse


def skeleton(path: Path, configs: Path | None, with_text: bool) -> Any:
    """A pipeline of a model's class with its denoiser, and its text encoders if asked, without weights (meta device).

    Reads configs only. Raises UserError as `pipeline_class` does, and when a part cannot be built.
    """
    import diffusers

    name, folder = pipeline_class(path, configs), model_folder(Path(path), configs)
    pipe = object.__new__(getattr(diffusers, name))
    for part, library, part_class in listed_parts(folder):
        if part not in ("unet", "transformer") and not (with_text and part.startswith("text_encoder")):
            continue
        try:
            object.__setattr__(pipe, part, _without_weights(folder / part, library, part_class))
        except ERRORS as error:
            reason = " ".join(str(error).split())[:300]
            raise refuse(folder, f"{part} cannot be built from its config ({reason}). Download it again.") from error
    return pipe


def _without_weights(folder: Path, library: str, kind: str) -> torch.nn.Module:
    made = getattr(importlib.import_module({"diffusers": "diffusers", "transformers": "transformers"}[library]), kind)
    with torch.device("meta"):
        if library == "diffusers":
            return made.from_config(made.load_config(folder, local_files_only=True))
        return made(made.config_class.from_pretrained(folder, local_files_only=True))
