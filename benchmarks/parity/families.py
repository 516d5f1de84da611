"""The families that both sides can hold: their checkpoint, pipeline, scheduler, VAE, and the same text embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

Extras = Mapping[str, Any]


class Family(NamedTuple):
    """How a family is held by diffusers and by ComfyUI."""

    pipeline: str
    """Class of diffusers."""
    embeds: Callable[[torch.Tensor, Extras], tuple]
    """What the pipeline's `encode_prompt` returns for a prompt's embedding [1, tokens, width] and its extras."""
    vae: tuple[str, Mapping[str, Any]]
    """Class of diffusers and its settings, those of the published models except for its widths."""
    solver: tuple[str, Mapping[str, Any]]
    """Scheduler of diffusers and its settings."""
    sampler: tuple[str, str]
    """Sampler and scheduler of ComfyUI that take the same steps."""
    steps: int
    guidance: float
    """Classifier-free guidance, 1: off."""
    config: Mapping[str, Any] = {}
    """More settings of the denoiser in diffusers than in lora_loaders/in_diffusers.json."""
    native: Mapping[str, Any] = {}
    """Other settings of the denoiser in ComfyUI than in families/zoo.json."""
    like: str = ""
    """The family in lora_loaders/in_diffusers.json whose converter and settings it has; "": its own."""
    parts: Mapping[str, Any] = {}
    """More arguments of the pipeline's class."""


def _sd(tensor: torch.Tensor, extras: Extras) -> tuple:
    return (tensor,)


def _pooled(tensor: torch.Tensor, extras: Extras) -> tuple:
    return tensor, None, extras["pooled_output"], None


def _flux(tensor: torch.Tensor, extras: Extras) -> tuple:
    return tensor, extras["pooled_output"], None


def _chroma(tensor: torch.Tensor, extras: Extras) -> tuple:
    return tensor, None, torch.ones(tensor.shape[:2], dtype=torch.bool), None, None, None


def _flux2(tensor: torch.Tensor, extras: Extras) -> tuple:
    return tensor, None


def _flux2_dev(tensor: torch.Tensor, extras: Extras) -> tuple:
    """ComfyUI pads prompts with zeros on the left."""
    return torch.nn.functional.pad(tensor, (0, 0, 512 - tensor.shape[1], 0)), None


def _z_image(tensor: torch.Tensor, extras: Extras) -> tuple:
    return [tensor[0]], None


def _qwen(tensor: torch.Tensor, extras: Extras) -> tuple:
    return tensor, torch.ones(tensor.shape[:2], dtype=torch.long)


def _krea2(tensor: torch.Tensor, extras: Extras) -> tuple:
    """ComfyUI holds the text encoder's layers side by side: [1, tokens, layers * 64]. The pipeline pads prompts."""
    layers, more = tensor.unflatten(2, (-1, _KREA2_WIDTH)), _KREA2_TOKENS - tensor.shape[1]
    mask = torch.arange(_KREA2_TOKENS)[None] < tensor.shape[1]
    return torch.nn.functional.pad(layers, (0, 0, 0, 0, 0, more)), mask


_KREA2_WIDTH, _KREA2_TOKENS = 64, 60
_EULER = "FlowMatchEulerDiscreteScheduler"
_TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_STEPS = 3
"""Steps of the UNets: where 999 / steps is whole, ComfyUI's sgm_uniform and diffusers' linspace are the same times."""
_DYNAMIC = (_EULER, {"use_dynamic_shifting": True})
_SIMPLE = ("euler", "simple")


def _kl(channels: int, scale: float, shift: float | None = None) -> tuple[str, dict[str, Any]]:
    more = {"use_quant_conv": channels == 4, "use_post_quant_conv": channels == 4}
    return "AutoencoderKL", {"latent_channels": channels, "scaling_factor": scale, "shift_factor": shift, **more}


_FLUX_VAE = _kl(16, 0.3611, 0.1159)
_QWEN_VAE = ("AutoencoderKLQwenImage", {"base_dim": 16, "z_dim": 16})
FAMILIES: Mapping[str, Family] = {
    "SD15": Family(
        "StableDiffusionPipeline", _sd, _kl(4, 0.18215), ("DPMSolverMultistepScheduler", {**_TABLE, "steps_offset": 1}),
        ("dpmpp_2m", "sgm_uniform"), _STEPS, 4.0,
    ),
    "SDXL": Family(
        "StableDiffusionXLPipeline", _pooled, _kl(4, 0.13025),
        ("EulerDiscreteScheduler", {**_TABLE, "timestep_spacing": "leading", "steps_offset": 999 // _STEPS}),
        ("euler", "sgm_uniform"), _STEPS, 4.0, config={"attention_head_dim": (1, 2)},
        parts={"force_zeros_for_empty_prompt": False},
    ),
    "SD3.5-medium": Family(
        "StableDiffusion3Pipeline", _pooled, _kl(16, 1.5305, 0.0609), (_EULER, {"shift": 3.0}), ("euler", "normal"),
        5, 4.0,
    ),
    "Flux-dev": Family("FluxPipeline", _flux, _FLUX_VAE, _DYNAMIC, _SIMPLE, 5, 1.0),
    # ComfyUI has the number of modulations written in, which is that of the published depths.
    "Chroma": Family(
        "ChromaPipeline", _chroma, _FLUX_VAE, _DYNAMIC, _SIMPLE, 5, 4.0,
        config={"num_layers": 19, "num_single_layers": 38}, native={"depth": 19, "depth_single_blocks": 38},
    ),
    "Flux2-klein": Family(
        "Flux2KleinPipeline", _flux2, ("AutoencoderKLFlux2", {}), _DYNAMIC, _SIMPLE, 5, 4.0
    ),
    "Flux2-dev": Family(
        "Flux2Pipeline", _flux2_dev, ("AutoencoderKLFlux2", {}), _DYNAMIC, _SIMPLE, 5, 1.0,
        config={"guidance_embeds": True, "joint_attention_dim": 15360}, like="Flux2-klein",
    ),
    "Z-Image": Family("ZImagePipeline", _z_image, _FLUX_VAE, (_EULER, {"shift": 3.0}), _SIMPLE, 5, 4.0),
    "Qwen-Image": Family("QwenImagePipeline", _qwen, _QWEN_VAE, _DYNAMIC, _SIMPLE, 5, 1.0),
    "Krea2": Family("Krea2Pipeline", _krea2, _QWEN_VAE, _DYNAMIC, _SIMPLE, 5, 4.0),
}  # fmt: skip
"""By their names in benchmarks/families/zoo.json."""
