"""Metrics of a training step, kept on the device until the trainer reads them."""

from __future__ import annotations

import torch

from .objectives import GroupErrors, PairErrors

Weighted = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Metrics of one forward by name: a mean and the number of pairs or samples that it is over. Scalars on the device."""


@torch.no_grad()
def step_metrics(
    loss: torch.Tensor, errors: PairErrors | GroupErrors, scale: torch.Tensor | None, sizes: bool = False
) -> Weighted:
    """Metrics of one forward: loss, winner and loser error above the reference's, margin, accuracy.

    Of groups, winners are the candidates above their prompt's mean reward, and losers those below.

    With the loser guard also `loser_scale`, the mean factor on the losers' gradients (`scale`, [n]); with
    `sizes` also `margin_size`, the mean size of the margins.
    """
    pairs, (winners, losers) = torch.full_like(loss, len(errors)), errors.counted
    numbers = {
        "loss": (loss, pairs),
        "winner_error": (errors.rises[0], winners),
        "loser_error": (errors.rises[1], losers),
        "margin": (errors.margin.mean(), pairs),
        "accuracy": ((errors.margin > 0).float().mean(), pairs),
    }
    if sizes:
        numbers["margin_size"] = errors.margin.abs().mean(), pairs
    return numbers if scale is None else {**numbers, "loser_scale": (scale.mean(), pairs)}


class Means:
    """Weighted means over the forwards of a step, on the device.

    Each forward has the weight of its pairs or samples, so splitting a forward does not change the means.
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._weights: dict[str, torch.Tensor] = {}

    def add(self, numbers: Weighted) -> None:
        for name, (value, weight) in numbers.items():
            self._sums[name] = self._sums.get(name, 0) + value * weight
            self._weights[name] = self._weights.get(name, 0) + weight

    def parts(self) -> list[torch.Tensor]:
        """The sums and weights, by name, for adding those of other processes in place."""
        names = sorted(self._sums)
        for name in names:  # tensors of their own, since a weight may be a view that others share
            self._sums[name], self._weights[name] = self._sums[name].clone(), self._weights[name].clone()
        return [part for name in names for part in (self._sums[name], self._weights[name])]

    def values(self) -> dict[str, torch.Tensor]:
        """The means as scalars; 0 where the weight is 0."""
        return {name: total / self._weights[name].clamp(min=1) for name, total in self._sums.items()}
