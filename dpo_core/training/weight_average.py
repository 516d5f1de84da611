"""Moving average of the adapter's weights over the steps of one round (train.ema_decay)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .adapter import Adapter


class WeightAverage:
    """The mean of the policy weights after each step of a round; the weight of a step falls by `decay` with each later
    one.

    Bias-corrected as Adam's moments are (arXiv 1412.6980, section 3): the weights of the steps sum to 1, so the start
    of the round is not in it. decay 0 is the last step, 1 the plain mean of all steps. For decay 0.5 and weights 1, 2,
    3 it is (1 / 4 + 2 / 2 + 3) / 1.75. One copy of the policy, float32, on its device.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.means: dict[str, torch.Tensor] = {}
        """By name as in `Adapter.state`; empty before the first step."""

    def share(self, step: int) -> float:
        """Weight of the newest step 0, 1, ... in the mean, above 0 to 1. It depends on the step alone."""
        steps = step + 1
        return 1 / steps if self.decay == 1 else (1 - self.decay) / (1 - self.decay**steps)

    @torch.no_grad()
    def add(self, step: int, adapter: Adapter) -> None:
        """Take in the policy weights after `step`."""
        if not self.means:
            self.means = adapter.state()
            return
        share = self.share(step)
        for name, layer in adapter.policy.items():
            self.means[f"{name}.down"].lerp_(layer.down, share)
            self.means[f"{name}.up"].lerp_(layer.up, share)

    @contextmanager
    def applied(self, adapter: Adapter) -> Iterator[None]:
        """Inside, the policy has the mean weights; on exit, also after an error, its own ones bit for bit."""
        own = adapter.state()
        self.put(adapter)
        try:
            yield
        finally:
            adapter.load(own)

    def put(self, adapter: Adapter) -> None:
        """Set the policy to the mean weights; before the first step nothing changes."""
        if self.means:
            adapter.load(self.means)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: mean.clone() for name, mean in self.means.items()}

    def load(self, state: dict[str, torch.Tensor], like: Adapter) -> None:
        """Load what `state` returned, onto the device of the policy."""
        device = like.parameters()[0].device
        self.means = {name: mean.to(device).clone() for name, mean in state.items()}
