"""The loser guard: its factor by hand, and its effect on the gradients of a step."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.dpo_core.training.loser_guard import guarded, loser_scale
from dreambooth_dpo.dpo_core.training.objectives import PAIR_OBJECTIVES, PairErrors, denoising_error


def test_the_scale_by_hand():
    """g_w = (2, 0), |g_w|^2 = 4, mu 0.5.

    g_l = (4, 1): g_l.g_w = 8 -> 0.5 * 4 / 8 = 0.25. (1, 9): 2 -> 2 / 2 = 1. (0.5, 0): 1 -> 2, clipped to 1. (-3, 1):
    negative -> 1. (0, 5): orthogonal -> 1.
    """
    g_w = torch.tensor([[2.0, 0.0]] * 5)
    g_l = torch.tensor([[4.0, 1.0], [1.0, 9.0], [0.5, 0.0], [-3.0, 1.0], [0.0, 5.0]])
    assert loser_scale(g_w, g_l, 0.5).tolist() == [0.25, 1.0, 1.0, 1.0, 1.0]


def test_the_limits_of_mu():
    """mu 1 removes a loser gradient along g_w; mu 0 lets it cancel the winner's whole gradient: 4 / 8."""
    g_w, g_l = torch.tensor([[2.0, 0.0]]), torch.tensor([[4.0, 1.0]])
    assert loser_scale(g_w, g_l, 1.0).item() == 0.0
    assert loser_scale(g_w, g_l, 0.0).item() == 0.5


def test_gradients_are_flattened_and_zeros_are_safe():
    g_w = torch.stack([torch.full((1, 2, 2), 1.0), torch.zeros(1, 2, 2)])
    g_l = torch.full((2, 1, 2, 2), 2.0)
    assert loser_scale(g_w, g_l, 0.9).tolist() == pytest.approx([0.1 * 4 / 8, 1.0])


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prediction, reference and target of three pairs.

    In the first pairs g_l . g_w is positive, in the last it is negative.
    """
    draws = torch.Generator().manual_seed(2)
    apart = torch.randn(3, 2, 4, 4, generator=draws)
    loser = torch.stack([2 * apart[0], torch.randn(2, 4, 4, generator=draws), -apart[2]])
    target = torch.randn(6, 2, 4, 4, generator=draws)
    reference = target + torch.cat([apart, loser]) + 0.05 * torch.randn(6, 2, 4, 4, generator=draws)
    return target + torch.cat([apart, loser]), reference, target


def errors_of(prediction: torch.Tensor, reference: torch.Tensor, target: torch.Tensor) -> PairErrors:
    (winner, loser), (winner_ref, loser_ref) = (denoising_error(p, target).chunk(2) for p in (prediction, reference))
    return PairErrors(winner, winner_ref, loser, loser_ref, torch.ones(3), beta=3.0)


@pytest.mark.parametrize("mu", [0.0, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("name", [n for n in PAIR_OBJECTIVES if n != "raft"])
def test_the_losers_gradient_is_scaled_and_nothing_else(name: str, mu: float) -> None:
    """Compared with autograd with respect to the predictions, pair by pair."""
    prediction, reference, target = batch()
    free, held = (prediction.clone().requires_grad_() for _ in range(2))
    loss = PAIR_OBJECTIVES[name](errors_of(free, reference, target))
    g_w, g_l = torch.autograd.grad(loss.sum(), free)[0].chunk(2)
    errors, scale = guarded(PAIR_OBJECTIVES[name], errors_of(held, reference, target), held, target, mu)
    assert scale.tolist() == pytest.approx(loser_scale(g_w, -g_l, mu).tolist(), rel=1e-5)
    guarded_loss = PAIR_OBJECTIVES[name](errors)
    assert torch.equal(guarded_loss, loss)
    new_w, new_l = torch.autograd.grad(guarded_loss.sum(), held)[0].chunk(2)
    assert torch.equal(new_w, g_w)
    assert torch.allclose(new_l, scale.view(-1, 1, 1, 1) * g_l, rtol=1e-5, atol=1e-9)
    # The guarantee: along g_w, the sum of both gradients is at least mu times the winner's own.
    kept = ((g_w + new_l) * g_w).flatten(1).sum(1) - mu * g_w.square().flatten(1).sum(1)
    assert (kept > -1e-6 * g_w.square().flatten(1).sum(1)).all()
    assert scale[2] == 1


def test_dpos_scale_depends_on_the_errors_gradients_only() -> None:
    """DPO weighs winner and loser equally, so its derivative cancels: clip((1 - mu) |d_w|^2 / (d_l . d_w)).

    d = prediction - target. Pair 0: d_l = 2 d_w, so lambda = (1 - 0.6) / 2 = 0.2.
    """
    prediction, reference, target = batch()
    d_w, d_l = (prediction - target).chunk(2)
    _, scale = guarded(PAIR_OBJECTIVES["dpo"], errors_of(prediction, reference, target), prediction, target, 0.6)
    assert scale.tolist() == pytest.approx(loser_scale(d_w, d_l, 0.6).tolist(), rel=1e-5)
    assert scale[0].item() == pytest.approx(0.2, rel=1e-5)


def test_an_objective_without_a_loser_is_unchanged() -> None:
    prediction, reference, target = batch()
    errors = errors_of(prediction, reference, target)
    same, scale = guarded(PAIR_OBJECTIVES["raft"], errors, prediction, target, 0.9)
    assert same is errors and scale.tolist() == [1.0, 1.0, 1.0]
