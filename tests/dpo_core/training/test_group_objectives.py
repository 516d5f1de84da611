"""Objectives on groups: values worked out by hand, and the same from predictions instead of errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.settings import GROUPED
from dreambooth_dpo.dpo_core.training.group_objectives import GROUP_OBJECTIVES, GroupErrors, awm, dgpo, nft
from dreambooth_dpo.dpo_core.training.objectives import NO_PREFERENCE, PairErrors, denoising_error, dpo, gap_weights

NUMBER = st.floats(-2, 2, allow_nan=False)


def group(own: list, reference: list, advantage: list, drift: list | None = None, beta: float = 1.0) -> GroupErrors:
    """One group, in float64."""
    rows = [None if r is None else torch.tensor([r], dtype=torch.float64) for r in (own, reference, advantage, drift)]
    return GroupErrors(*rows[:3], beta, rows[3])


def of_predictions(values: list[tuple[float, float, float]], advantage: list[float], beta: float) -> GroupErrors:
    """One-element pictures: (policy's prediction, reference's, target) of each candidate."""
    theta, old, target = (torch.tensor(column, dtype=torch.float64)[None] for column in zip(*values, strict=True))
    errors = (theta - target) ** 2, (old - target) ** 2
    return GroupErrors(*errors, torch.tensor([advantage], dtype=torch.float64), beta, (theta - old) ** 2)


def test_nft_by_hand():
    """Candidate: v 0, v_old 1, v_theta 0.5, beta 1/2, A 2.5, so r = 3/4.

    v+ = 0.5 + 0.25 = 0.75, v- = 1.5 - 0.25 = 1.25: (3/4 * 0.5625 + 1/4 * 1.5625) / (1/2) = 1.625. From errors: e 1/4,
    e_ref 1, D 1/4; |v+|^2 = 1 - 0.375 - 0.0625 and |v-|^2 = 1 + 0.375 + 0.1875.
    """
    assert nft(group([0.25], [1.0], [2.5], [0.25], beta=0.5)).tolist() == pytest.approx([1.625])


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=4), st.floats(0.05, 2), st.floats(-7, 7))
def test_nft_from_errors_equals_nft_from_predictions(values, beta, advantage):
    """The paper's v+ and v- themselves; advantages beyond 5 count as 5."""
    r = 0.5 + min(max(advantage / 5, -1), 1) / 2
    each = []
    for theta, old, target in values:
        positive, negative = (1 - beta) * old + beta * theta, (1 + beta) * old - beta * theta
        each.append((r * (positive - target) ** 2 + (1 - r) * (negative - target) ** 2) / beta)
    found = nft(of_predictions(values, [advantage] * len(values), beta)).item()
    assert found == pytest.approx(sum(each) / len(each), rel=1e-6, abs=1e-6)


def test_the_drift_is_what_the_errors_lack():
    """Two elements: residual of the reference (1, 0), drift (0, 1): e = 1, e_ref = 1/2, D = 1/2 as means.

    v+ with beta 1 is the policy: its error e. A = 5 takes it alone.
    """
    old, theta, target = (torch.tensor([[[v]]]) for v in ([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]))
    e, e_ref, drift = denoising_error(theta, target), denoising_error(old, target), denoising_error(theta, old)
    assert (e.item(), e_ref.item(), drift.item()) == (1.0, 0.5, 0.5)
    assert nft(GroupErrors(e[None], e_ref[None], torch.tensor([[5.0]]), 1.0, drift[None])).item() == 1.0


def test_awm_by_hand():
    """A 5 and -2.5, so 1 and -1/2; e - e_ref = log 2 and -log 4, so q = 1/2 and 4, the latter clipped to 2.

    max(-1/2, -1/2) + 0.1 * 1 and max(1/2 * 4, 1/2 * 2) + 0.1 * 2: (-0.4 + 2.2) / 2 = 0.9.
    """
    loss = awm(group([math.log(2), 0.0], [0.0, math.log(4)], [5.0, -2.5], [1.0, 2.0], beta=0.1))
    assert loss.tolist() == pytest.approx([0.9])


def test_awm_does_not_push_a_good_candidate_beyond_the_clip():
    """q = 4 and A > 0: max(-4 A, -2 A) = -2 A, without a gradient; at q = 1 the gradient is A / 5."""
    for rise, slope in ((-math.log(4), 0.0), (0.0, 0.4)):
        own = torch.tensor([[1.0 + rise]], requires_grad=True)
        awm(GroupErrors(own, torch.ones(1, 1), torch.full((1, 1), 2.0), 1.0, torch.zeros(1, 1))).sum().backward()
        assert own.grad.item() == pytest.approx(slope)


@given(st.floats(-1e-3, 1e-3), st.floats(0, 1e-3), st.floats(-5, 5), st.floats(0.5, 3))
def test_nft_is_awm_with_a_drift_weight_of_its_own(rise, drift, advantage, beta):
    """Up to e_ref / beta and to second order in the rise: A/5 (e - e_ref) + (beta - A/5) D."""
    one = nft(group([0.5 + rise], [0.5], [advantage], [drift], beta=beta)).item() - 0.5 / beta
    other = awm(group([0.5 + rise], [0.5], [advantage], [drift], beta=beta - advantage / 5)).item() + advantage / 5
    assert one == pytest.approx(other, abs=1e-6)


def test_dgpo_by_hand():
    """Advantages 2, 0, -1, -1 (mean 0), rises 1, 5, -1, 3: sum A rise = 2 + 1 - 3 = 0: log 2, with beta 4.

    Without the last one's rise: S = 4/4 * 3, so log(1 + e^3) = 3.048587. Advantages 3, 1, 0, 0 are centred to the same.
    """
    assert dgpo(group([1, 5, -1, 3], [0] * 4, [2, 0, -1, -1], beta=4.0)).item() == pytest.approx(math.log(2))
    for advantages in ([2, 0, -1, -1], [3, 1, 0, 0]):
        found = dgpo(group([1, 5, -1, 0], [0] * 4, advantages, beta=4.0)).item()
        assert found == pytest.approx(3.048587, abs=1e-6)


@given(NUMBER, NUMBER, NUMBER, NUMBER, st.floats(0.1, 100))
def test_dgpo_of_two_candidates_is_diffusion_dpo(winner, winner_ref, loser, loser_ref, beta):
    found = dgpo(group([winner, loser], [winner_ref, loser_ref], [1.0, -1.0], beta=beta)).item()
    rows = [torch.tensor([v], dtype=torch.float64) for v in (winner, winner_ref, loser, loser_ref, 0.0)]
    assert found == pytest.approx(dpo(PairErrors(*rows, beta=beta)).item(), rel=1e-6, abs=1e-6)


def test_the_gradient_of_dgpo_is_that_of_the_authors_code():
    """Their loss: mean of sigmoid(S), without gradient, times A times e; ours has beta before it."""
    draws = torch.Generator().manual_seed(0)
    reference, advantage = (torch.randn(3, 4, generator=draws, dtype=torch.float64) for _ in range(2))
    advantage = advantage - advantage.mean(1, keepdim=True)
    own = torch.randn(3, 4, generator=draws, dtype=torch.float64).requires_grad_()
    beta = 3.0
    ours = torch.autograd.grad(dgpo(GroupErrors(own, reference, advantage, beta)).mean(), own)[0]
    weight = torch.sigmoid((beta * advantage * (own - reference) / 4).sum(1, keepdim=True)).detach()
    theirs = torch.autograd.grad((weight * advantage * own).mean(), own)[0]
    assert torch.allclose(ours, beta * theirs)


@pytest.mark.parametrize("name", GROUP_OBJECTIVES)
def test_good_candidates_errors_are_lowered_and_bad_ones_raised(name):
    own = torch.full((1, 2), 0.5, requires_grad=True)
    half, zeros = torch.full((1, 2), 0.5), torch.zeros(1, 2)
    loss = GROUP_OBJECTIVES[name](GroupErrors(own, half, torch.tensor([[1.0, -1.0]]), 1.0, zeros))
    assert loss.shape == (1,)
    if name in NO_PREFERENCE:
        assert loss.item() == pytest.approx(NO_PREFERENCE[name])
    loss.sum().backward()
    assert own.grad[0, 0] > 0 > own.grad[0, 1]


def test_metrics_of_a_group_by_hand():
    """Advantages 2, -1, -1 and rises -0.1, 0.3, 0.1: margin -2 (-0.2 - 0.3 - 0.1) / 4 = 0.3.

    One candidate above the mean, two below, whose mean rise is 0.2. A pair's margin is Diffusion-DPO's.
    """
    errors = group([0.4, 0.8, 0.6], [0.5] * 3, [2.0, -1.0, -1.0])
    assert errors.margin.tolist() == pytest.approx([0.3])
    assert [v.item() for v in errors.counted] == [1, 2]
    assert [v.item() for v in errors.rises] == pytest.approx([-0.1, 0.2])
    assert group([0.3, 0.9], [0.5, 0.6], [0.7, -0.7]).margin.item() == pytest.approx(0.5)
    assert group([0.3], [0.5], [0.0]).margin.item() == 0


def test_gap_weights_by_hand():
    """Gaps 1, 3, -2: 1, 3 and 0 over their mean 4/3. Squared: 1, 9, 0 over 10/3."""
    gaps = torch.tensor([1.0, 3.0, -2.0])
    assert gap_weights(gaps, 1.0).tolist() == pytest.approx([0.75, 2.25, 0])
    assert gap_weights(gaps, 2.0).tolist() == pytest.approx([0.3, 2.7, 0])
    assert gap_weights(gaps, 0.0).tolist() == gap_weights(-gaps.abs(), 1.0).tolist() == [1, 1, 1]


def test_the_settings_name_the_objectives_of_groups():
    assert set(GROUP_OBJECTIVES) == GROUPED
