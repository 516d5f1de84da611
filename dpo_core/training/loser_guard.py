"""The loser-gradient guard of Diffusion-SDPO (arXiv 2511.03317): losers push only as far as it does not cost the
winners.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from .objectives import Objective, PairErrors


def loser_scale(g_w: torch.Tensor, g_l: torch.Tensor, mu: float) -> torch.Tensor:
    """lambda = clip((1 - mu) |g_w|^2 / (g_l . g_w), 0, 1) where g_l . g_w > 0, else 1: [n, ...] x2 -> [n], one of each
    pair.

    g_w, g_l: gradients with respect to the prediction for the winner, which the step goes down, and for the loser,
    which the step goes up. With the loser's scaled by lambda, the step's part along g_w is at least mu |g_w|^2: to
    first order, and in the space of predictions, the winner's error does not rise.
    """
    g_w, g_l = g_w.flatten(1), g_l.flatten(1)
    both = (g_l * g_w).sum(1)
    limit = (1 - mu) * g_w.square().sum(1) / torch.where(both > 0, both, 1.0)
    return torch.where(both > 0, limit, 1.0).clamp(0, 1)


def guarded(
    objective: Objective, errors: PairErrors, prediction: torch.Tensor, target: torch.Tensor, mu: float
) -> tuple[PairErrors, torch.Tensor]:
    """The errors with the loser's gradient scaled by lambda, and lambda [n]; the errors' values stay the same to the
    bit.

    prediction, target: [2n, C, h, w], winners first. The gradients are those of the loss: of the objective by the
    errors, times 2 (prediction - target) of the errors by the prediction. An objective without a loser is left as it
    is, lambda 1.
    """
    with torch.enable_grad():
        ends = [e.detach().requires_grad_() for e in (errors.winner, errors.loser)]
        loss = objective(replace(errors, winner=ends[0], loser=ends[1])).sum()
        down, up = torch.autograd.grad(loss, ends, allow_unused=True)
    if down is None or up is None:
        return errors, torch.ones_like(errors.winner)
    with torch.no_grad():
        # Factors that both share (2 / number of elements) cancel. The loser's error is to rise: its gradient counts
        # with the sign turned.
        apart_w, apart_l = (prediction.detach().float() - target.float()).flatten(1).chunk(2)
        scale = loser_scale(down[:, None] * apart_w, -up[:, None] * apart_l, mu)
    held = errors.loser.detach()
    return replace(errors, loser=held + scale * (errors.loser - held)), scale
