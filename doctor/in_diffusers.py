"""Checks training on the diffusers backend, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .full_size import SIDES, kind_of_device, lacking, measure
from .launch import say
from .training_findings import guarded, self_check_findings

TINY_SIDE = 64


def answer(request: dict[str, Any]) -> None:
    """Run the checks of a request, and report findings.

    request: device, and either `family` of a tiny model, or `full`, the kind of a full-size one, with `folder` for
    gradients.
    """
    kind, device = request.get("full"), request["device"]
    if kind is None:
        guarded("training", lambda: _self_check(request["family"], device))
    elif (found := lacking(kind, device, None)) is not None:
        say("finding", found)
    else:
        guarded("full size", lambda: _full(kind, device, Path(request["folder"])))


def _self_check(family: str, device: str) -> None:
    from .training_check import limit_of, tiny

    subject = _subject(tiny_pipeline(family, device), TINY_SIDE)
    title = f"{'toybox' if family == 'toybox' else 'a tiny SD 1.5'} on diffusers, {device}"
    for found in self_check_findings(title, list(tiny(subject)), limit_of(subject.model)):
        say("finding", found)


def _full(kind: str, device: str, folder: Path) -> None:
    from ..dpo_core.backends.diffusers.random_models import RandomXL, random_pipeline

    say("doing", f"{kind}: random weights")
    pipe = random_pipeline(kind, device)
    measure(
        _subject(pipe, SIDES[kind_of_device(device)][kind], RandomXL if kind == "sdxl" else None),
        kind,
        "diffusers",
        folder,
    )


def tiny_pipeline(family: str, device: str):
    """A StableDiffusionPipeline: the toybox's, or one with a tiny random UNet with one block of each kind."""
    from ..dpo_core.backends.diffusers.model import load_pipeline
    from ..dpo_core.backends.diffusers.quiet import quiet_libraries
    from ..dpo_core.backends.diffusers.random_models import tiny_unet
    from ..toybox.models import weights_folder

    quiet_libraries()
    pipe = load_pipeline(weights_folder("pipeline"), device)
    if family != "toybox":
        pipe.unet = tiny_unet().to(device)
    return pipe


def _subject(pipe: Any, side: int, kind: type | None = None) -> Any:
    from ..dpo_core.backends.diffusers.model import DiffusersTextToImage
    from .training_check import Subject

    model = (kind or DiffusersTextToImage)(pipe)
    latent = (model.denoiser.config.in_channels, side // pipe.vae_scale_factor, side // pipe.vae_scale_factor)
    return Subject(model, lambda: latent, dict)
