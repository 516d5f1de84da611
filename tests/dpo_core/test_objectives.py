"""The Diffusion-DPO loss against values worked out by hand and against an independent formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.objectives import OBJECTIVES, denoising_error, dpo, implicit_margin

ERROR = st.floats(0, 2, allow_nan=False, width=32)


def tensors(*rows: list[float]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(r, dtype=torch.float64) for r in rows)


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)) in float64, without overflow; -log sigmoid(m) = softplus(-m)."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def test_denoising_error_is_the_mean_over_the_elements_of_each_sample():
    """Sample 0: differences 1, 2, 3, 4 -> (1 + 4 + 9 + 16) / 4 = 7.5. Sample 1: none -> 0."""
    prediction = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
    target = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 5.0)])
    assert denoising_error(prediction, target).tolist() == [7.5, 0.0]


def test_denoising_error_is_float32_for_half_inputs():
    """In bf16 the square of 300 would be 90112; the error must be of the values themselves."""
    error = denoising_error(torch.full((1, 1, 1, 1), 300.0, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16))
    assert error.dtype == torch.float32 and error.item() == 90000.0


def test_margin_by_hand():
    """-[(0.3 - 0.5) - (0.9 - 0.6)] = 0.5: the winner fell by 0.2, the loser rose by 0.3."""
    margin = implicit_margin(*tensors([0.3], [0.5], [0.9], [0.6]))
    assert margin.item() == pytest.approx(0.5, abs=1e-12)


def test_loss_by_hand():
    """beta 2 gives log(1 + exp(-margin)).

    margin 0: log 2 = 0.693147. margin 0.5: log(1 + 0.606531) = 0.474077. margin -0.5: log(1 + 1.648721) = 0.974077 (0.5 more).
    """
    loss = dpo(*tensors([0.4, 0.3, 0.6], [0.4, 0.5, 0.6], [0.7, 0.9, 0.1], [0.7, 0.6, 0.6]), beta=2.0)
    assert loss.tolist() == pytest.approx([0.693147, 0.474077, 0.974077], abs=1e-6)


@given(ERROR, ERROR, ERROR, ERROR, st.floats(0.1, 5000))
def test_loss_is_the_independent_formula(winner, winner_ref, loser, loser_ref, beta):
    """Against softplus in numpy of the paper's bracket, written out with its own sign."""
    expected = softplus(np.float64(beta) / 2 * ((winner - winner_ref) - (loser - loser_ref)))
    found = dpo(*tensors([winner], [winner_ref], [loser], [loser_ref]), beta=beta).item()
    assert found == pytest.approx(float(expected), abs=1e-6, rel=1e-6)


@given(ERROR, ERROR, st.floats(0.1, 5000))
def test_loss_is_log_2_where_policy_and_reference_agree(winner, loser, beta):
    loss = dpo(*(torch.tensor([v]) for v in (winner, winner, loser, loser)), beta=beta)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)


def test_float32_agrees_at_the_usual_beta():
    """At beta 2000 and error differences of 1e-3 the sigmoid's argument is of order 1; float32 keeps it to 1e-6 relative to float64."""
    values = np.random.default_rng(0).normal(0, 1e-3, (4, 64))
    double = dpo(*(torch.tensor(v) for v in values), beta=2000.0)
    single = dpo(*(torch.tensor(v, dtype=torch.float32) for v in values), beta=2000.0)
    assert torch.allclose(single.double(), double, rtol=1e-5, atol=1e-6)


def test_the_loss_comes_per_pair_so_that_the_mean_is_taken_after_the_sigmoid():
    """Margins 4 and -4 at beta 2: mean of losses (0.018150 + 4.018150) / 2 = 2.018150; a mean inside the sigmoid would give log 2."""
    loss = dpo(*tensors([0.0, 4.0], [4.0, 0.0], [0.0, 0.0], [0.0, 0.0]), beta=2.0)
    assert loss.shape == (2,)
    assert loss.mean().item() == pytest.approx(2.018150, abs=1e-6)


def test_no_overflow_far_out():
    """A margin of -10 at beta 5000 costs 25000; one of +10 costs nothing."""
    loss = dpo(*(torch.tensor(v) for v in ([10.0, 0.0], [0.0, 10.0], [0.0, 0.0], [0.0, 0.0])), beta=5000.0)
    assert loss.tolist() == [25000.0, 0.0]


def test_gradients_lower_the_winners_error_and_raise_the_losers():
    """At equality d loss / d e_w = beta / 4 and d loss / d e_l = -beta / 4 (sigmoid(0) / 2 * beta)."""
    winner = torch.tensor([0.5], requires_grad=True)
    loser = torch.tensor([0.7], requires_grad=True)
    dpo(winner, torch.tensor([0.5]), loser, torch.tensor([0.7]), beta=8.0).sum().backward()
    assert winner.grad.item() == pytest.approx(2.0) and loser.grad.item() == pytest.approx(-2.0)


def test_every_objective_of_the_settings_is_there():
    from typing import get_args

    from dreambooth_dpo.dpo_core.settings import TrainSettings

    assert set(get_args(TrainSettings.model_fields["objective"].annotation)) == set(OBJECTIVES)
