"""The step caches: which steps are forwards, and what stands in for the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dreambooth_dpo.benchmarks.step_cache import EveryStep, StepCache, cached_steps, compared, ways

TIMES = (900, 600, 300, 0)


def path(cache, xs, values, times=TIMES) -> list[float]:
    """Outputs for one-element latents."""
    given = iter(values)
    return [
        float(cache(lambda: torch.tensor([[next(given)]]), torch.tensor([[x]]), torch.tensor(t)))
        for x, t in zip(xs, times, strict=True)
    ]


def test_a_step_whose_change_is_small_is_left_out():
    """x 0, 1, 1.5, 4: forwards 2 and 2.5: rate 0.5 / 1. Third: 0.5 * 0.5 / 2.5 = 0.1, below 0.3: x + (2.5 - 1) = 3.
    Fourth: 0.1 + 0.5 * 2.5 / 2.5 = 0.6: a forward.
    """
    cache = StepCache(0.3)
    assert path(cache, (0.0, 1.0, 1.5, 4.0), (2.0, 2.5, 7.0)) == [2.0, 2.5, 3.0, 7.0]
    assert (cache.steps, cache.forwards) == (4, 3)


def test_threshold_0_leaves_nothing_out_and_a_new_path_begins_with_forwards():
    cache = StepCache(1e9)
    assert path(StepCache(0.0), (0.0, 1.0, 1.0, 1.0), (1.0, 2.0, 3.0, 4.0)) == [1.0, 2.0, 3.0, 4.0]
    for _ in range(2):
        path(cache, (0.0, 1.0, 2.0, 3.0), (1.0, 2.0))
    assert (cache.steps, cache.forwards) == (8, 4)


def test_every_second_step_by_hand():
    cache = EveryStep(2)
    assert path(cache, (0.0, 0.0, 0.0, 0.0), (1.0, 2.0)) == [1.0, 1.0, 2.0, 2.0]
    assert path(cache, (0.0, 0.0, 0.0, 0.0), (3.0, 4.0)) == [3.0, 3.0, 4.0, 4.0], "a new path starts with a forward"
    assert (cache.steps, cache.forwards) == (8, 4)


def test_a_denoiser_has_its_own_forward_back():
    class Denoiser(nn.Module):
        def forward(self, sample, time, encoder_hidden_states=None):
            from types import SimpleNamespace

            return SimpleNamespace(sample=sample + encoder_hidden_states)

    denoiser, cache = Denoiser(), EveryStep(2)
    with cached_steps(denoiser, cache):
        found = [
            denoiser(torch.full((1,), x), torch.tensor(t), encoder_hidden_states=1.0).sample.item()
            for x, t in ((1.0, 900), (2.0, 600))
        ]
    assert found == [2.0, 2.0] and "forward" not in vars(denoiser)
    assert denoiser(torch.ones(1), 0, 1.0).sample.item() == 2.0


def test_comparison_by_hand():
    """Latents 0 and 2 (deviation sqrt 2) against 1 and 1 away: 1 / sqrt 2. Rewards in the reverse order: -1."""
    whole = torch.tensor([[0.0], [2.0]]), np.array([1.0, 2.0])
    found = compared((torch.tensor([[1.0], [1.0]]), np.array([5.0, 4.0])), whole, np.zeros(2, int))
    assert found["distance"] == pytest.approx(2**-0.5) and found["correlation"] == pytest.approx(-1)
    assert next(iter(ways())) == "all steps" and next(iter(ways().values()))[1]() is None
