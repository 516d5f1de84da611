"""Noised latents, regression targets and raw predictions of ComfyUI's model types.

`apply_model` returns the denoised latent, from which the raw prediction is recovered. With x the noised latent, s its
sigma, D the denoised latent (x0-hat) and e the noise:
    eps:  x = x0 + s e;        raw (x - D) / s;                                target e
    v:    x = x0 + s e;        raw (x / (s^2 + 1) - D) sqrt(s^2 + 1) / s;      target (e - s x0) / sqrt(1 + s^2)
    flow: x = (1 - s) x0 + s k e; raw (x - D) / s;                             target k e - x0
    cosmos: x = x0 + s e;      raw (x (1 - c) - D) / c, c = s / (s + 1);       target e - x0
with k the model's noise scale, mostly 1.
(Karras et al., arXiv 2206.00364, table 1; Lipman et al., arXiv 2210.02747.)
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import UserError
from . import host


def kind_of(model_sampling: Any) -> str:
    """The prediction type: "eps", "v", "flow" or "cosmos". Raises UserError for any other type of model."""
    # Compare the method: isinstance would also accept EDM, X0 and the LCM of ComfyUI's ModelSamplingDiscrete node,
    # which inherit from EPS.
    denoised = getattr(type(model_sampling), "calculate_denoised", None)
    for name, kind in host.kinds().items():
        if denoised is kind.calculate_denoised and hasattr(model_sampling, "sigmas"):
            return name
    raise UserError(
        f"models of type {type_name(model_sampling)} cannot be trained here; eps, v, flow and Cosmos models can."
    )


def type_name(model_sampling: Any) -> str:
    """Names of the base classes of ComfyUI's dynamic class: schedule and type, as "ModelSamplingDiscrete EPS"."""
    return " ".join(base.__name__ for base in type(model_sampling).__bases__)


def _wide(sigmas: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return sigmas.to(like).view(-1, *([1] * (like.ndim - 1)))


def noised(
    kind: str, x0: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The noised latent and the regression target, both like x0 [n, C, h, w]; sigmas [n].

    scale: the noise scale of a flow model's sampling (`noise_scale`).
    """
    s = _wide(sigmas, x0)
    if kind == "cosmos":
        return x0 + s * noise, noise - x0
    if kind == "flow":
        noise = noise if scale == 1 else scale * noise
        return (1 - s) * x0 + s * noise, noise - x0
    return x0 + s * noise, noise if kind == "eps" else (noise - s * x0) / (1 + s**2).sqrt()


def raw_prediction(kind: str, noised: torch.Tensor, denoised: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """The network's raw prediction [n, C, h, w], recovered from the denoised latents; sigmas [n]."""
    s = _wide(sigmas, noised)
    if kind == "v":
        return (noised / (s**2 + 1) - denoised) * (s**2 + 1).sqrt() / s
    if kind == "cosmos":
        c = s / (s + 1)
        return (noised * (1 - c) - denoised) / c
    return (noised - denoised) / s
