"""Models of the training benchmark: the shipped toybox, and full-size models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from ...dpo_core.backends.diffusers.random_models import SIDES, RandomXL, random_pipeline
from ...dpo_core.errors import UserError
from ...toybox.models import weights_folder

RESOLUTIONS = {"toybox": 64, **SIDES}
"""Default resolution: pixels per side."""


@dataclass(frozen=True)
class Subject:
    """A model to train on, with the sizes of its images and latents."""

    name: str
    pipe: object
    make: Callable[[str], DiffusersTextToImage]
    """The TextToImage at a precision."""
    latent: tuple[int, int, int]
    resolution: int


def subject(name: str, resolution: int, device: str) -> Subject:
    """Raises UserError for an unknown name, and for a resolution that is no multiple of the model's downsampling."""
    if name not in RESOLUTIONS:
        raise UserError(f"no model {name!r}; models are {', '.join(RESOLUTIONS)}.")
    if name == "toybox":
        pipe, factor = load_pipeline(weights_folder("pipeline"), device), 4
    else:
        pipe, factor = random_pipeline(name, device), 8
    halvings = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    if resolution % halvings:
        raise UserError(
            f"resolution {resolution} is no multiple of {halvings}, the downsampling of {name}. Choose a multiple."
        )
    kind = RandomXL if name == "sdxl" else DiffusersTextToImage
    side = resolution // factor
    return Subject(name, pipe, lambda precision: kind(pipe, precision), (4, side, side), resolution)
