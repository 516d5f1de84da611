"""The pipeline classes of diffusers that are driven by their own call, and how each calls its denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F

from ...errors import UserError


@dataclass(frozen=True)
class Driven:
    """How a pipeline class is driven. Checked on each model before its first picture (see `PipelineTextToImage`)."""

    embeds: tuple[str | None, ...]
    """For each value that `encode_prompt` returns, the argument of the pipeline's call that takes it; None: none.

    Those of the negative prompt are named the same, after "negative_".
    """
    flow: bool = True
    """Whether it predicts the velocity noise - x0; else its scheduler has a table of betas."""
    time: Literal["levels", "thousands", "reversed"] = "levels"
    """What the denoiser of a flow model takes as time: the noise level s in 0..1, 1000 s, or 1 - s."""
    tokens: Literal["", "patches", "places"] = ""
    """The denoiser's latents [n, tokens, c]: patches of the picture's latents, or its places; "": [n, c, h, w]."""
    cfg: str | None = "guidance_scale"
    """The call's argument for classifier-free guidance; None: the pipeline has none."""
    cfg_off: float = 1.0
    """The value of that argument which is off; 0 for a pipeline that adds to the prompt's prediction."""
    embedded: bool = False
    """Whether `guidance_scale` is an input of the denoiser (a guidance-distilled model)."""
    inputs: tuple[str, str] = ("hidden_states", "timestep")
    """Names of the denoiser's arguments for latents and time."""
    listed: bool = False
    """Whether the denoiser takes a list of latents [c, 1, h, w] and gives one of x0 - noise (Z-Image)."""


_SDXL = ("prompt_embeds", None, "pooled_prompt_embeds", None)
_MASKED = ("prompt_embeds", "prompt_embeds_mask")
DRIVEN: Mapping[str, Driven] = {
    "StableDiffusionXLPipeline": Driven(_SDXL, flow=False, inputs=("sample", "timestep")),
    "StableDiffusion3Pipeline": Driven(_SDXL, time="thousands"),
    "FluxPipeline": Driven(
        ("prompt_embeds", "pooled_prompt_embeds", None), tokens="patches", cfg="true_cfg_scale", embedded=True
    ),
    "ChromaPipeline": Driven(("prompt_embeds", None, "prompt_attention_mask", None, None, None), tokens="patches"),
    "Flux2Pipeline": Driven(("prompt_embeds", None), tokens="places", cfg=None, embedded=True),
    "Flux2KleinPipeline": Driven(("prompt_embeds", None), tokens="places"),
    "ZImagePipeline": Driven(
        ("prompt_embeds", None), time="reversed", cfg_off=0.0, inputs=("x", "t"), listed=True
    ),
    "QwenImagePipeline": Driven(_MASKED, tokens="patches", cfg="true_cfg_scale"),
    "Krea2Pipeline": Driven(_MASKED, tokens="patches", cfg_off=0.0),
}  # fmt: skip
"""By class name. From the source of diffusers 0.42.1: `__call__` and `encode_prompt` of each class."""


def to_tokens(latents: torch.Tensor, driven: Driven, patch: int = 2) -> torch.Tensor:
    """Latents [n, c, h, w] as the scheduler of the pipeline holds them: [n, tokens, ...], or as they are.

    "patches": [n, h/p * w/p, c * p * p], a patch's numbers in the order channel, row, column. "places": [n, h * w, c].
    """
    if not driven.tokens:
        return latents
    p = 1 if driven.tokens == "places" else patch
    return F.pixel_unshuffle(latents, p).flatten(2).transpose(1, 2)


def from_tokens(tokens: torch.Tensor, shape: tuple[int, int, int], driven: Driven, patch: int = 2) -> torch.Tensor:
    """The inverse of `to_tokens`. shape: (c, h, w)."""
    if not driven.tokens:
        return tokens
    p = 1 if driven.tokens == "places" else patch
    _, h, w = shape
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (h // p, w // p)), p)


def patch_size(pipe: Any) -> int:
    """Side of a patch of latents in one token. Unit: places of the latent."""
    return int(getattr(pipe, "patch_size", 2) or 2)


def latent_sides(name: str, width: int, height: int) -> tuple[int, int]:
    """(h, w) of the latents of a picture of this size, for a class by its name. Unit: pixels in, places out.

    Raises UserError for a size that the class cannot draw: most pipelines would draw a smaller picture instead.
    """
    step = 16 if name in DRIVEN and DRIVEN[name].flow else 8  # transformers take patches of 2 x 2 places
    if width % step or height % step:
        raise UserError(
            f"sampling.width x height is {width}x{height}, but {name} draws sizes that {step} divides. Set it to "
            f"{max(1, round(width / step)) * step}x{max(1, round(height / step)) * step}."
        )
    factor = 16 if name in DRIVEN and DRIVEN[name].tokens == "places" else 8
    return height // factor, width // factor


def component(pipe: Any) -> str:
    """The name of the pipeline's denoiser: "unet" or "transformer"."""
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def guidance_arguments(pipe: Any, driven: Driven, guidance: float, embedded: float) -> dict[str, float]:
    """The call's arguments for classifier-free guidance (1: off) and for the guidance that the denoiser takes.

    Raises UserError where the pipeline has no classifier-free guidance and `guidance` is above 1.
    """
    name = type(pipe).__name__
    if guidance > 1 and (driven.cfg is None or pipe.config.get("is_distilled")):
        raise UserError(
            f"sampling.guidance is {guidance:g}, but {name} {'of this distilled model ' if driven.cfg else ''}has no "
            "classifier-free guidance. Set sampling.guidance to 1."
        )
    given = {} if driven.cfg is None else {driven.cfg: guidance - 1 + driven.cfg_off}
    return {**given, "guidance_scale": embedded} if driven.embedded else given
