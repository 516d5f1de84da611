"""Noise levels of training: the table's, or drawn over 0 to 1 and shifted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainers import make_trainer

from dreambooth_dpo.dpo_core.seeds import generator
from dreambooth_dpo.dpo_core.training.times import LEAST, draw_times, shifted_levels


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Table:
    """Times 0..999; a level is a place in the table."""

    def draw_timesteps(self, count, generator):
        return torch.randint(0, 1000, (count,), generator=generator)

    def times_at(self, levels):
        return (levels * 1000).long().clamp(max=999)


def test_the_table_is_drawn_by_the_model_itself() -> None:
    assert torch.equal(draw_times(Table(), 50, draws()), Table().draw_timesteps(50, draws()))


@pytest.mark.parametrize(("shift", "median"), [(1.0, 0.5), (3.0, 0.75), (2.0, 2 / 3)])
@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_the_shift_moves_the_median(sampling, shift, median) -> None:
    """Both draws have median 1/2; s t / (1 + (s - 1) t) at t = 1/2 is s / (1 + s): 3/4 for 3, 2/3 for 2."""
    levels = shifted_levels(40_000, draws(), sampling, shift)
    assert float(levels.median()) == pytest.approx(median, abs=0.01)


def test_uniform_levels_are_uniform_and_logit_normal_ones_lie_in_the_middle() -> None:
    """Of a uniform draw half is in 1/4..3/4; of a logit-normal one |z| < log 3 = 1.0986, so 72.8 %."""
    middle = [
        float(((levels > 0.25) & (levels < 0.75)).float().mean())
        for levels in (shifted_levels(40_000, draws(), s, 1.0) for s in ("uniform", "logit_normal"))
    ]
    assert middle == pytest.approx([0.5, 0.728], abs=0.01)


@given(st.integers(0, 2**31 - 1), st.floats(0.01, 100.0), st.sampled_from(["uniform", "logit_normal"]))
def test_levels_stay_between_the_least_and_pure_noise(seed, shift, sampling) -> None:
    levels = shifted_levels(64, draws(seed), sampling, shift)
    assert levels.min() >= LEAST and levels.max() <= 1


def test_levels_become_the_models_times() -> None:
    times = draw_times(Table(), 1000, draws(), "logit_normal", 2.0)
    assert times.dtype == torch.int64 and times.max() < 1000
    assert torch.equal(times, Table().times_at(shifted_levels(1000, draws(), "logit_normal", 2.0)))


def test_a_trainer_draws_as_its_settings_say() -> None:
    """The first forward of step 2 with logit-normal levels: the draws of seed and step, through the model's times."""
    trainer = make_trainer(time_sampling="logit_normal", time_shift=3.0)
    levels = shifted_levels(len(trainer.picks(2, 0)), generator(trainer.seed, 2, 2, 0), "logit_normal", 3.0)
    assert torch.equal(trainer._batch(2, 0).times.chunk(2)[0], trainer.model.times_at(levels))


def test_the_reference_cache_draws_alike() -> None:
    """Draw 0 of pair 1 comes from (seed, 5, pair, draw)."""
    trainer = make_trainer(time_sampling="uniform", time_shift=2.0, reference_bank=2)
    zero = torch.zeros(1, dtype=torch.int64)
    times, _ = trainer.cache.draw(trainer.model, zero + 1, zero, (3, 8, 8))
    expected = shifted_levels(1, generator(trainer.seed, 5, 1, 0), "uniform", 2.0)
    assert torch.equal(times, trainer.model.times_at(expected))
