"""Loser guard of Diffusion-SDPO (arXiv 2511.03317): scales the losers' gradients so that winner errors do not rise."""

from __future__ import annotations

from dataclasses import replace

import torch

from .group_objectives import GroupErrors, GroupObjective
from .objectives import Objective, PairErrors


def loser_scale(g_w: torch.Tensor, g_l: torch.Tensor, mu: float) -> torch.Tensor:
    """Factor lambda on the loser's gradient of each pair: [n, ...] x2 -> [n], in 0..1.

    lambda = clip((1 - mu) |g_w|^2 / (g_l . g_w), 0, 1) where g_l . g_w > 0, else 1. g_w, g_l: gradients with respect to
    the prediction, for the winner (whose error the step lowers) and the loser (whose error it raises). With the
    loser's gradient scaled by lambda, the component of the step along g_w is at least mu |g_w|^2: to first order, and
    in the space of predictions, the winner's error does not rise.
    """
    g_w, g_l = g_w.flatten(1), g_l.flatten(1)
    both = (g_l * g_w).sum(1)
    limit = (1 - mu) * g_w.square().sum(1) / torch.where(both > 0, both, 1.0)
    return torch.where(both > 0, limit, 1.0).clamp(0, 1)


def guarded_group(
    objective: GroupObjective, errors: GroupErrors, prediction: torch.Tensor, target: torch.Tensor, mu: float
) -> tuple[GroupErrors, torch.Tensor]:
    """As `guarded`, for groups of G candidates: one lambda [b] for the losers of each.

    Losers are the candidates whose error the step raises, winners those whose error it lowers; g_w and g_l are the sums
    of their gradients, since all of a group share one time and one noise. A group of two is a pair. The drift of nft
    and awm, a pull back to the reference, stays as it is. prediction, target: [G b, C, h, w], the first of each group
    first.
    """
    with torch.enable_grad():
        leaf = errors.policy.detach().requires_grad_()
        by = torch.autograd.grad(objective(replace(errors, policy=leaf)).sum(), leaf)[0]
    with torch.no_grad():
        residual = torch.stack((prediction.detach().float() - target.float()).flatten(1).chunk(by.shape[1]), 1)
        g_w, g_l = ((by.mul(sign).clamp(min=0)[..., None] * residual).sum(1) for sign in (1, -1))
        scale = loser_scale(g_w, g_l, mu)
        factor = torch.where(by < 0, scale[:, None], 1.0)
    value = errors.policy.detach()
    return replace(errors, policy=value + factor * (errors.policy - value)), scale


def guarded(
    objective: Objective, errors: PairErrors, prediction: torch.Tensor, target: torch.Tensor, mu: float
) -> tuple[PairErrors, torch.Tensor]:
    """Scale the loser's gradient by lambda (`loser_scale`); returns the errors and lambda [n].

    The values of the errors stay the same bit for bit; only their gradient changes. prediction, target: [2n, C, h, w],
    winners first. The gradient of the loss with respect to the prediction is, by the chain rule, the objective's
    derivative by the error times 2 (prediction - target) / number of elements. For an objective without losers the
    errors are returned unchanged, with lambda 1.
    """
    with torch.enable_grad():
        leaves = [e.detach().requires_grad_() for e in (errors.winner, errors.loser)]
        loss = objective(replace(errors, winner=leaves[0], loser=leaves[1])).sum()
        by_winner, by_loser = torch.autograd.grad(loss, leaves, allow_unused=True)
    if by_winner is None or by_loser is None:
        return errors, torch.ones_like(errors.winner)
    with torch.no_grad():
        # The common factor 2 / number of elements cancels in lambda. The loser's gradient is negated, since the step
        # is to raise its error.
        residual_w, residual_l = (prediction.detach().float() - target.float()).flatten(1).chunk(2)
        scale = loser_scale(by_winner[:, None] * residual_w, -by_loser[:, None] * residual_l, mu)
    value = errors.loser.detach()
    return replace(errors, loser=value + scale * (errors.loser - value)), scale
