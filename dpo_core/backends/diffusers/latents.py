"""Between a VAE's latents and those of the denoiser, as the pipelines of diffusers scale them."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def _moments(vae: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(mean, spread) of each channel, float32 [c]; None for a VAE with one factor for all."""
    config = vae.config
    if hasattr(vae, "bn"):  # Flux.2: of patches of 2 x 2 places, in the order channel, row, column
        return vae.bn.running_mean, (vae.bn.running_var + config.batch_norm_eps).sqrt()
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        return torch.tensor(config.latents_mean), torch.tensor(config.latents_std)
    return None


def to_vae(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The VAE's own latents of the denoiser's [n, C, h, w]: with 5 dimensions for a VAE of videos."""
    moments = _moments(vae)
    if moments is None:
        return latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
    mean, spread = (value.to(latents).view(1, -1, 1, 1) for value in moments)
    latents = latents * spread + mean
    if hasattr(vae, "bn"):
        return F.pixel_shuffle(latents, 2)
    return latents.unsqueeze(2)


def from_vae(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_vae`."""
    moments = _moments(vae)
    if moments is None:
        return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor
    if hasattr(vae, "bn"):
        latents = F.pixel_unshuffle(latents, 2)
    else:
        latents = latents.squeeze(2)
    mean, spread = (value.to(latents).view(1, -1, 1, 1) for value in moments)
    return (latents - mean) / spread


def takes_frames(vae: Any) -> bool:
    """Whether a VAE takes videos [n, 3, frames, H, W]."""
    return not hasattr(vae, "bn") and _moments(vae) is not None
