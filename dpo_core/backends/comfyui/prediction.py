"""Noising, regression target and raw prediction of ComfyUI's model types, through the denoised picture that
`apply_model` gives.

With x the noised latent, s its sigma, D the denoised picture (x0-hat) and e the noise:
    eps:  x = x0 + s e;        raw (x - D) / s;                                target e
    v:    x = x0 + s e;        raw (x / (s^2 + 1) - D) sqrt(s^2 + 1) / s;      target (e - s x0) / sqrt(1 + s^2)
    flow: x = (1 - s) x0 + s e; raw (x - D) / s;                               target e - x0
(Karras et al., arXiv 2206.00364, table 1; Lipman et al., arXiv 2210.02747.)
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import UserError
from . import host


def kind_of(model_sampling: Any) -> str:
    """ "eps", "v" or "flow". Raises UserError for any other kind of model."""
    # By the method, not by isinstance: EDM, X0 and the LCM of ComfyUI's ModelSamplingDiscrete node are EPS by
    # inheritance.
    denoised = getattr(type(model_sampling), "calculate_denoised", None)
    for name, kind in host.kinds().items():
        if denoised is kind.calculate_denoised and hasattr(model_sampling, "sigmas"):
            return name
    raise UserError(f"models of type {type_name(model_sampling)} cannot be trained here; eps, v and flow models can.")


def type_name(model_sampling: Any) -> str:
    """The schedule and the kind that ComfyUI's throw-away class is made of: "ModelSamplingDiscrete EPS"."""
    return " ".join(base.__name__ for base in type(model_sampling).__bases__)


def _wide(sigmas: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return sigmas.to(like).view(-1, *([1] * (like.ndim - 1)))


def noised(kind: str, x0: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The noised latent and the regression target, both like x0 [n, C, h, w]; sigmas [n]."""
    s = _wide(sigmas, x0)
    if kind == "flow":
        return (1 - s) * x0 + s * noise, noise - x0
    return x0 + s * noise, noise if kind == "eps" else (noise - s * x0) / (1 + s**2).sqrt()


def raw_prediction(kind: str, noised: torch.Tensor, denoised: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """What the network itself said, recovered from the denoised picture; [n, C, h, w]."""
    s = _wide(sigmas, noised)
    if kind == "v":
        return (noised / (s**2 + 1) - denoised) * (s**2 + 1).sqrt() / s
    return (noised - denoised) / s
