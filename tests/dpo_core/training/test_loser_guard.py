"""The loser guard: its factor by hand, and its effect on the gradients of a step."""

from __future__ import annotations

import pytest
import torch

from dreambooth_dpo.dpo_core.training.group_objectives import GROUP_OBJECTIVES, GroupErrors
from dreambooth_dpo.dpo_core.training.loser_guard import guarded, guarded_group, loser_scale
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


def group_errors(prediction: torch.Tensor, reference: torch.Tensor, target: torch.Tensor, advantage) -> GroupErrors:
    """Errors of groups whose pictures come in turn: the first of each group, then the second, ..."""
    size = advantage.shape[1]
    own, before = (torch.stack(denoising_error(p, target).chunk(size), 1) for p in (prediction, reference))
    drift = torch.stack(denoising_error(prediction, reference).chunk(size), 1)
    return GroupErrors(own, before, advantage, 3.0, drift)


def test_a_group_of_two_is_guarded_as_a_pair() -> None:
    """dgpo of advantages 1 and -1 is dpo: the same lambda and the same gradients."""
    prediction, reference, target = batch()
    as_pairs, as_groups = (prediction.clone().requires_grad_() for _ in range(2))
    pairs, scale = guarded(PAIR_OBJECTIVES["dpo"], errors_of(as_pairs, reference, target), as_pairs, target, 0.6)
    advantage = torch.tensor([[1.0, -1.0]] * 3)
    errors = group_errors(as_groups, reference, target, advantage)
    groups, group_scale = guarded_group(GROUP_OBJECTIVES["dgpo"], errors, as_groups, target, 0.6)
    assert group_scale.tolist() == pytest.approx(scale.tolist(), rel=1e-5)
    by_pairs = torch.autograd.grad(PAIR_OBJECTIVES["dpo"](pairs).sum(), as_pairs)[0]
    by_groups = torch.autograd.grad(GROUP_OBJECTIVES["dgpo"](groups).sum(), as_groups)[0]
    assert torch.allclose(by_groups, by_pairs, rtol=1e-4, atol=1e-8)


def test_the_scale_of_a_group_by_hand() -> None:
    """One group of three with dgpo: advantages 2, -1, -1, predictions 1, 1 and 3 away from the target, one number each.

    The gradients are as A d: winner 2 * 1 = 2, losers 1 * 1 + 1 * 3 = 4. lambda = (1 - 0.5) * 4 / (4 * 2) = 0.25.
    """
    prediction = torch.tensor([1.0, 1.0, 3.0]).view(3, 1, 1, 1)
    target, advantage = torch.zeros(3, 1, 1, 1), torch.tensor([[2.0, -1.0, -1.0]])
    errors = group_errors(prediction, prediction, target, advantage)
    _, scale = guarded_group(GROUP_OBJECTIVES["dgpo"], errors, prediction, target, 0.5)
    assert scale.tolist() == pytest.approx([0.25])


@pytest.mark.parametrize("mu", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("name", GROUP_OBJECTIVES)
def test_the_losers_of_a_group_are_scaled_and_nothing_else(name: str, mu: float) -> None:
    """Compared with autograd with respect to the errors: the values stay, the losers' slope is lambda times theirs."""
    draws = torch.Generator().manual_seed(3)
    target, apart = torch.randn(8, 2, 4, 4, generator=draws), torch.randn(2, 4, 4, generator=draws)
    reference = target + apart + 0.1 * torch.randn(8, 2, 4, 4, generator=draws)  # of one time and one noise: alike
    prediction = reference + 0.1 * torch.randn(8, 2, 4, 4, generator=draws)
    advantage = torch.tensor([[1.5, 0.5, -0.4, -1.6], [0.2, -0.1, -0.2, 0.1]])
    errors, objective = group_errors(prediction, reference, target, advantage), GROUP_OBJECTIVES[name]
    leaf = errors.policy.clone().requires_grad_()
    free = objective(GroupErrors(leaf, errors.reference, advantage, 3.0, errors.drift))
    by = torch.autograd.grad(free.sum(), leaf)[0]
    held, scale = guarded_group(
        objective, GroupErrors(leaf, errors.reference, advantage, 3.0, errors.drift), prediction, target, mu
    )
    loss = objective(held)
    assert torch.equal(loss, free) and ((0 <= scale) & (scale <= 1)).all() and (mu == 0 or (scale < 1).any())
    assert torch.equal(by < 0, advantage < 0), "those above the mean are the winners"
    now = torch.autograd.grad(loss.sum(), leaf)[0]
    assert torch.allclose(now, torch.where(by < 0, scale[:, None], 1.0) * by, rtol=1e-5, atol=1e-9)
