"""Noise schedules of diffusers' schedulers: the kind of prediction, and the table that training draws from."""

from __future__ import annotations

from typing import Any

import torch

from .folder import check_prediction_type


def schedule_of(scheduler: Any, flow: bool) -> tuple[str, torch.Tensor]:
    """(kind of prediction, table float32 [T]): "flow" and noise levels, or the prediction type and products of alphas.

    Raises UserError for a prediction type other than epsilon and v_prediction.
    """
    fresh = type(scheduler).from_config(scheduler.config)  # a scheduler that was used holds the levels of that use
    if flow:
        return "flow", torch.as_tensor(fresh.sigmas).float().flatten()[: fresh.config.num_train_timesteps].cpu()
    kind = fresh.config.prediction_type
    check_prediction_type(kind)
    return kind, fresh.alphas_cumprod.float().cpu()


def table_noised(
    alphas: torch.Tensor, kind: str, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t = sqrt(a) x0 + sqrt(1-a) noise, and the target: the noise, or v = sqrt(a) noise - sqrt(1-a) x0."""
    a = alphas[times.to(alphas.device)].view(-1, 1, 1, 1).to(x0)
    noised = a.sqrt() * x0 + (1 - a).sqrt() * noise
    return noised, noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * x0
