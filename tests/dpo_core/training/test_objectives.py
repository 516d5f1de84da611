"""Every objective, compared with values worked out by hand and with an independent formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.training.objectives import (
    NO_PREFERENCE,
    OBJECTIVES,
    PAIR_OBJECTIVES,
    REFERENCE_FREE,
    PairErrors,
    denoising_error,
    dpo,
    hinge,
    implicit_margin,
    ipo,
    kto,
    mapo,
    raft,
    reward_gap,
)

ERROR = st.floats(0, 2, allow_nan=False, width=32)


def tensors(*rows: list[float]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(r, dtype=torch.float64) for r in rows)


def errors_of(*rows: list[float], beta: float = 2.0, gap: list[float] | None = None) -> PairErrors:
    """Pairs of float64 errors, one row each: winner, its reference, loser, its reference."""
    return PairErrors(*tensors(*rows, gap or [0.0] * len(rows[0])), beta=beta)


def of_margin(*margins: float, beta: float = 2.0, gap: list[float] | None = None) -> PairErrors:
    """Pairs with the given margins, as a rise of the loser's error."""
    zeros = [0.0] * len(margins)
    return errors_of(zeros, zeros, list(margins), zeros, beta=beta, gap=gap)


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) in float64, without overflow; -log sigmoid(m) = softplus(-m)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def test_denoising_error_is_the_mean_over_the_elements_of_each_sample():
    """Sample 0: differences 1, 2, 3, 4 -> (1 + 4 + 9 + 16) / 4 = 7.5. Sample 1: none -> 0."""
    prediction = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
    target = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 5.0)])
    assert denoising_error(prediction, target).tolist() == [7.5, 0.0]


def test_denoising_error_is_float32_for_half_inputs():
    """In bf16 the square of 300 would be 90112; the error must be computed in float32."""
    error = denoising_error(
        torch.full((1, 1, 1, 1), 300.0, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16)
    )
    assert error.dtype == torch.float32 and error.item() == 90000.0


def test_margin_by_hand():
    """-[(0.3 - 0.5) - (0.9 - 0.6)] = 0.5: the winner fell by 0.2, the loser rose by 0.3."""
    margin = implicit_margin(*tensors([0.3], [0.5], [0.9], [0.6]))
    assert margin.item() == pytest.approx(0.5, abs=1e-12)


def test_loss_by_hand():
    """beta 2 gives log(1 + exp(-margin)).

    margin 0: log 2 = 0.693147. margin 0.5: log(1 + 0.606531) = 0.474077. margin -0.5: log(1 + 1.648721) = 0.974077,
    which is 0.5 more.
    """
    loss = dpo(errors_of([0.4, 0.3, 0.6], [0.4, 0.5, 0.6], [0.7, 0.9, 0.1], [0.7, 0.6, 0.6]))
    assert loss.tolist() == pytest.approx([0.693147, 0.474077, 0.974077], abs=1e-6)


@given(ERROR, ERROR, ERROR, ERROR, st.floats(0.1, 5000))
def test_loss_equals_an_independent_formula(winner, winner_ref, loser, loser_ref, beta):
    """Compared with numpy's softplus of the paper's bracket, in the paper's sign."""
    expected = softplus(np.float64(beta) / 2 * ((winner - winner_ref) - (loser - loser_ref)))
    found = dpo(errors_of([winner], [winner_ref], [loser], [loser_ref], beta=beta)).item()
    assert found == pytest.approx(float(expected), abs=1e-6, rel=1e-6)


@given(ERROR, ERROR, st.floats(0.1, 5000))
def test_loss_is_log_2_where_policy_and_reference_agree(winner, loser, beta):
    loss = dpo(PairErrors(*(torch.tensor([v]) for v in (winner, winner, loser, loser, 0.0)), beta=beta))
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)


def test_float32_agrees_at_the_usual_beta():
    """At beta 2000 and error differences of 1e-3 the sigmoid's argument is of order 1.

    float32 agrees with float64 to 1e-6 relative.
    """
    values = np.random.default_rng(0).normal(0, 1e-3, (5, 64))
    double = dpo(PairErrors(*(torch.tensor(v) for v in values), beta=2000.0))
    single = dpo(PairErrors(*(torch.tensor(v, dtype=torch.float32) for v in values), beta=2000.0))
    assert torch.allclose(single.double(), double, rtol=1e-5, atol=1e-6)


def test_the_loss_is_per_pair_so_that_the_mean_is_taken_after_the_sigmoid():
    """Margins 4 and -4 at beta 2: the mean of the losses is (0.018150 + 4.018150) / 2 = 2.018150.

    A mean inside the sigmoid would give log 2.
    """
    loss = dpo(errors_of([0.0, 4.0], [4.0, 0.0], [0.0, 0.0], [0.0, 0.0]))
    assert loss.shape == (2,)
    assert loss.mean().item() == pytest.approx(2.018150, abs=1e-6)


def test_no_overflow_at_large_margins():
    """At beta 5000, a margin of -10 has loss 25000 and one of +10 has loss 0."""
    rows = ([10.0, 0.0], [0.0, 10.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    loss = dpo(PairErrors(*(torch.tensor(v) for v in rows), beta=5000.0))
    assert loss.tolist() == [25000.0, 0.0]


def test_gradients_lower_the_winners_error_and_raise_the_losers():
    """When policy and reference agree, d loss / d e_w = beta / 4 and d loss / d e_l = -beta / 4.

    beta / 4 is sigmoid(0) * beta / 2.
    """
    winner = torch.tensor([0.5], requires_grad=True)
    loser = torch.tensor([0.7], requires_grad=True)
    dpo(PairErrors(winner, torch.tensor([0.5]), loser, torch.tensor([0.7]), torch.zeros(1), beta=8.0)).sum().backward()
    assert winner.grad.item() == pytest.approx(2.0) and loser.grad.item() == pytest.approx(-2.0)


# --- the other objectives ---


def test_ipo_by_hand():
    """beta 4, tau 2. Margin 0: (0 - 1/2)^2 = 0.25. Margin 1/4 = 1/(2 tau): 0. Margin 1: (2 - 0.5)^2 = 2.25.

    Margin -1/4: (-0.5 - 0.5)^2 = 1.
    """
    assert ipo(of_margin(0.0, 0.25, 1.0, -0.25, beta=4.0)).tolist() == pytest.approx([0.25, 0.0, 2.25, 1.0], abs=1e-12)


@given(st.floats(-0.1, 0.1), st.floats(0.1, 5000))
def test_ipo_equals_the_papers_times_tau_squared(margin, beta):
    """(h - 1/(2 tau))^2 with tau = beta/2, times tau^2."""
    tau = beta / 2
    expected = tau**2 * (margin - 1 / (2 * tau)) ** 2
    assert ipo(of_margin(margin, beta=beta)).item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_hinge_by_hand():
    """beta 4: margin 0 -> 1; 1/4 -> 1 - 0.5; 1/2 = 2/beta -> 0; 3 -> 0; -1 -> 1 + 2. Above 2/beta: no gradient."""
    assert hinge(of_margin(0.0, 0.25, 0.5, 3.0, -1.0, beta=4.0)).tolist() == pytest.approx(
        [1.0, 0.5, 0.0, 0.0, 3.0], abs=1e-12
    )
    loser = torch.tensor([0.25, 3.0], requires_grad=True)
    zeros = torch.zeros(2)
    hinge(PairErrors(zeros, zeros, loser, zeros, zeros, beta=4.0)).sum().backward()
    assert loser.grad.tolist() == [-2.0, 0.0]


def test_reward_gap_by_hand():
    """beta 2000, so r = 1000 margin. Margin 0.002, gap 2: 0. Margin 0, gap 2: 4. Margin 0.001, gap 3: 4.

    Margin -0.001, gap 0.5: 2.25.
    """
    loss = reward_gap(of_margin(0.002, 0.0, 0.001, -0.001, beta=2000.0, gap=[2.0, 2.0, 3.0, 0.5]))
    assert loss.tolist() == pytest.approx([0.0, 4.0, 4.0, 2.25], abs=1e-9)


@given(st.floats(-0.01, 0.01), st.floats(0.1, 5000), st.floats(0, 10))
def test_reward_gap_is_the_squared_error_of_the_implicit_reward_difference(margin, beta, gap):
    """PRDP: each sample's r = beta' log(p / p_ref) is -beta/2 (e - e_ref) here.

    The loss is the squared distance of the difference of both to the gap.
    """
    winner, loser = -beta / 2 * (0.3 - margin - 0.3), -beta / 2 * 0.0
    found = reward_gap(errors_of([0.3 - margin], [0.3], [0.7], [0.7], beta=beta, gap=[gap])).item()
    assert found == pytest.approx((winner - loser - gap) ** 2, rel=1e-6, abs=1e-6)


def test_mapo_by_hand():
    """Errors 1 and 2: scores 0.1/(e^0.1 - 1) = 0.950833 and 0.2/(e^0.2 - 1) = 0.903331, 47.5021 apart after times 1000.

    Winner 1, loser 2: the margin adds nothing, 1. Winner 2, loser 1: 2 + 0.1 * 47.50208 = 6.750208. Equal errors of 1:
    1 + 0.1 log 2 = 1.069315.
    """
    loss = mapo(errors_of([1.0, 2.0, 1.0], [9.0] * 3, [2.0, 1.0, 1.0], [9.0] * 3, beta=0.1))
    assert loss.tolist() == pytest.approx([1.0, 6.750208, 1.069315], abs=1e-6)


@given(st.floats(1e-6, 20), st.floats(1e-6, 20), st.floats(0.1, 10))
def test_mapo_equals_the_authors_formula(winner, loser, beta):
    """snr_value 0.1, 1000 training times, in numpy with expm1."""
    score = [0.1 * e / np.expm1(0.1 * e) for e in (winner, loser)]
    expected = winner + beta * softplus(np.float64(-1000 * (score[0] - score[1])))
    assert mapo(errors_of([winner], [0.0], [loser], [0.0], beta=beta)).item() == pytest.approx(
        float(expected), rel=1e-6, abs=1e-6
    )


def test_mapo_has_an_accurate_derivative_in_float32():
    """The score falls by s/2 = 0.05 per unit of error.

    At equal errors d loss / d e_w = 1 + 0.1 * 1000 * 0.05 / 2 = 3.5, and for the loser -2.5.
    """
    for error in (0.0, 1e-4, 1e-2):
        winner, loser = (torch.tensor([error], requires_grad=True) for _ in range(2))
        mapo(PairErrors(winner, winner.detach(), loser, loser.detach(), torch.zeros(1), beta=0.1)).sum().backward()
        assert winner.grad.item() == pytest.approx(3.5, rel=2e-3) and loser.grad.item() == pytest.approx(-2.5, rel=2e-3)


def test_kto_by_hand():
    """beta 2. Pair 0: g_w = 0.3, g_l = 0.1; pair 1: g_w = 0.2, g_l = -0.2; their mean z = 0.1.

    Pair 0: (sigmoid(-0.4) + sigmoid(0)) / 2 = (0.401312 + 0.5) / 2. Pair 1: (sigmoid(-0.2) + sigmoid(-0.6)) / 2 =
    (0.450166 + 0.354344) / 2.
    """
    loss = kto(errors_of([0.2, 0.3], [0.5, 0.5], [0.4, 0.7], [0.5, 0.5]))
    assert loss.tolist() == pytest.approx([0.450656, 0.402255], abs=1e-6)


def test_ktos_reference_point_is_not_below_zero():
    """g_w = -0.1 and g_l = -0.3: z = 0 instead of -0.2.

    (sigmoid(0.2) + sigmoid(-0.6)) / 2 = (0.549834 + 0.354344) / 2.
    """
    assert kto(errors_of([0.6], [0.5], [0.8], [0.5])).item() == pytest.approx(0.452089, abs=1e-6)


@given(st.lists(st.tuples(ERROR, ERROR, ERROR, ERROR), min_size=1, max_size=6), st.floats(0.1, 50))
def test_kto_equals_the_authors_formula(rows, beta):
    """1 - sigmoid(sign * beta * (g - kl)) of each sample, with kl the mean of g over all, clipped at 0.

    The loss of a pair is the mean over its two samples.
    """
    winner, winner_ref, loser, loser_ref = np.asarray(rows, np.float64).T
    g = np.concatenate([winner_ref - winner, loser_ref - loser])
    sign = np.repeat([1.0, -1.0], len(rows))
    loss = 1 - 1 / (1 + np.exp(-sign * beta * (g - max(g.mean(), 0))))
    found = kto(errors_of(winner.tolist(), winner_ref.tolist(), loser.tolist(), loser_ref.tolist(), beta=beta))
    assert found.numpy() == pytest.approx(loss.reshape(2, -1).mean(0), abs=1e-6)


def test_ktos_reference_point_has_no_gradient():
    """One pair, g_w = g_l = 0.2 = z: d loss / d e_w = beta / 8 = 1, and -1 for the loser.

    With a gradient through z both would differ.
    """
    winner, loser = (torch.tensor([0.3], requires_grad=True) for _ in range(2))
    half = torch.tensor([0.5])
    kto(PairErrors(winner, half, loser, half, torch.zeros(1), beta=8.0)).sum().backward()
    assert winner.grad.item() == pytest.approx(1.0) and loser.grad.item() == pytest.approx(-1.0)


def test_raft_is_the_winners_error():
    assert raft(errors_of([0.3, 0.1], [0.5, 0.5], [0.9, 0.2], [0.6, 0.6], beta=7.0)).tolist() == [0.3, 0.1]


# --- all of them ---


@pytest.mark.parametrize("name", PAIR_OBJECTIVES)
def test_a_better_winner_has_a_lower_loss(name):
    """The loss falls when the winner's error falls, and never when the loser's error falls."""
    winner, loser = torch.tensor([0.5, 0.501]), torch.tensor([0.5, 0.499])
    ends = [e.clone().requires_grad_() for e in (winner, loser)]
    errors = PairErrors(ends[0], torch.full((2,), 0.5), ends[1], torch.full((2,), 0.5), torch.ones(2), beta=100.0)
    loss = OBJECTIVES[name](errors)
    assert loss.shape == (2,)
    down, up = torch.autograd.grad(loss.sum(), ends, allow_unused=True)
    assert (down > 0).all() and (up is None or (up < 0).all())
    assert (up is None) == (name == "raft")


@pytest.mark.parametrize("name", PAIR_OBJECTIVES)
def test_reference_free_objectives_do_not_use_the_reference(name):
    values = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    errors = [
        PairErrors(values[0], ref, values[1], ref / 2, values[2], beta=3.0) for ref in (values[3], values[3] + 0.1)
    ]
    losses = [OBJECTIVES[name](e) for e in errors]
    assert torch.equal(*losses) == (name in REFERENCE_FREE)


@given(ERROR, ERROR, st.floats(0.1, 5000))
def test_no_preference_is_the_loss_when_policy_and_reference_agree(winner, loser, beta):
    for name, level in NO_PREFERENCE.items():
        if name not in PAIR_OBJECTIVES:
            continue
        loss = OBJECTIVES[name](errors_of([winner], [winner], [loser], [loser], beta=beta, gap=[1.0]))
        assert loss.item() == pytest.approx(level, abs=1e-9), name


def test_every_objective_of_the_settings_is_implemented():
    from typing import get_args

    from dreambooth_dpo.dpo_core.settings import TrainSettings

    assert set(get_args(TrainSettings.model_fields["objective"].annotation)) == set(OBJECTIVES)
