"""Models to train on for the training benchmark: the shipped toybox, and full-size shapes with random weights.

Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from ...dpo_core.backends.diffusers.random_models import SIDES, RandomXL, random_pipeline
from ...dpo_core.errors import UserError
from ...toybox.models import weights_folder

RESOLUTIONS = {"toybox": 64, **SIDES}
"""Pixels a side, unless another is asked for."""


@dataclass(frozen=True)
class Subject:
    """A model to train on, and where its pictures and latents lie."""

    name: str
    pipe: object
    make: Callable[[str], DiffusersTextToImage]
    """The TextToImage of a precision."""
    latent: tuple[int, int, int]
    resolution: int


def subject(name: str, resolution: int, device: str) -> Subject:
    """Raises UserError for another name, and for a resolution that the model's blocks do not divide."""
    if name not in RESOLUTIONS:
        raise UserError(f"no model {name!r}; models are {', '.join(RESOLUTIONS)}.")
    if name == "toybox":
        pipe, factor = load_pipeline(weights_folder("pipeline"), device), 4
    else:
        pipe, factor = random_pipeline(name, device), 8
    halvings = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    if resolution % halvings:
        raise UserError(
            f"resolution {resolution} is no multiple of {halvings}, which {name}'s blocks need. Choose one that is."
        )
    kind = RandomXL if name == "sdxl" else DiffusersTextToImage
    return Subject(
        name, pipe, lambda precision: kind(pipe, precision), (4, resolution // factor, resolution // factor), resolution
    )
