"""Draws the noise levels of training, as trainers of each family do."""

from __future__ import annotations

from typing import Protocol

import torch

LEAST = 1e-3
"""Lowest noise level of a flow model that is drawn; at 0 there is nothing to predict."""


class Timed(Protocol):
    """The part of TextToImage that this module uses."""

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor: ...

    def times_at(self, levels: torch.Tensor) -> torch.Tensor: ...


def draw_times(
    model: Timed, count: int, generator: torch.Generator, sampling: str = "table", shift: float | None = None
) -> torch.Tensor:
    """`count` training times in the model's own unit.

    sampling: "table" (uniform over the model's own levels), "uniform" or "logit_normal" over 0 to 1 (`shifted_levels`).
    """
    if sampling == "table":
        return model.draw_timesteps(count, generator)
    return model.times_at(shifted_levels(count, generator, sampling, shift or 1.0))


def shifted_levels(count: int, generator: torch.Generator, sampling: str, shift: float) -> torch.Tensor:
    """Levels float32 [count] from 0.001 to 1, 1 being pure noise: s t / (1 + (s - 1) t) for a drawn t.

    "uniform": t uniform; "logit_normal": t the sigmoid of a standard normal draw (SD3, arXiv 2403.03206, section 3.1;
    the shift is its equation 23). For s = 3, t = 0.5 becomes 0.75.
    """
    if sampling == "uniform":
        drawn = torch.rand(count, generator=generator)
    else:
        drawn = torch.randn(count, generator=generator).sigmoid()
    return (shift * drawn / (1 + (shift - 1) * drawn)).clamp(LEAST, 1.0)
