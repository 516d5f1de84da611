"""Auto-beta: beta of DPO from a moving average of the margins' size.

In Diffusion-DPO a pair pushes by sigmoid(-beta/2 margin). With a fixed beta that share falls to 0 once margins have
grown, or stays at a half where they are tiny. Here beta is chosen so that a pair of usual margin keeps a fifth of its
push: beta = 2 log(4) / (mean size of the margin), within a floor and a ceiling. After SimpleTuner's auto_beta
(documentation/experimental/FLOW_DPO.md; its average forgets more slowly, for runs of thousands of steps).
"""

from __future__ import annotations

import math

import torch

PUSH = 0.2
"""Share of the push that a pair of usual margin keeps."""
DECAY = 0.9
"""Weight of the past in the average, per optimizer step: it looks back about ten steps."""


class AutoBeta:
    """The average and the beta that follows from it; both are scalars on the device."""

    def __init__(self, floor: float, ceiling: float, device: torch.device) -> None:
        self.floor, self.ceiling = floor, ceiling
        self.sum, self.weight = (torch.zeros((), device=device) for _ in range(2))

    def value(self) -> torch.Tensor:
        """beta for the next step; the ceiling before the first.

        A mean size of 0.001 gives 2 log(4) / 0.001 = 2773.
        """
        size = (self.sum / self.weight.clamp(min=1e-12)).clamp(min=1e-12)
        return (2 * math.log(1 / PUSH - 1) / size).clamp(self.floor, self.ceiling)

    def add(self, size: torch.Tensor) -> None:
        """Take in the mean size of a step's margins."""
        self.sum = DECAY * self.sum + (1 - DECAY) * size.detach()
        self.weight = DECAY * self.weight + (1 - DECAY)

    def state(self) -> dict[str, torch.Tensor]:
        return {"sum": self.sum.clone(), "weight": self.weight.clone()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.sum, self.weight = (state[name].to(self.sum.device).clone() for name in ("sum", "weight"))
