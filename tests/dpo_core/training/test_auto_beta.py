"""beta from a moving average of the margins' size."""

from __future__ import annotations

import math

import pytest
import torch
from loops import difference
from trainers import make_trainer, steps_of

from dreambooth_dpo.dpo_core.training.auto_beta import DECAY, AutoBeta
from dreambooth_dpo.dpo_core.training.steps import train_steps

CPU = torch.device("cpu")


def test_it_starts_at_the_ceiling() -> None:
    assert float(AutoBeta(100, 5000, CPU).value()) == 5000


def test_a_pair_of_usual_margin_keeps_a_fifth_of_its_push() -> None:
    """Sizes of 0.001: beta = 2 log 4 / 0.001 = 2772.6, and sigmoid(-beta/2 0.001) = sigmoid(-log 4) = 1/5."""
    auto = AutoBeta(100, 5000, CPU)
    for _ in range(3):
        auto.add(torch.tensor(0.001))
    beta = float(auto.value())
    assert beta == pytest.approx(2772.6, rel=1e-4)
    assert 1 / (1 + math.exp(beta / 2 * 0.001)) == pytest.approx(0.2, rel=1e-4)


def test_the_average_forgets_and_is_not_pulled_to_zero_at_the_start() -> None:
    """Sizes 0.001 then 0.003: (0.9 * 0.1 * 0.001 + 0.1 * 0.003) / (0.9 * 0.1 + 0.1) = 0.00039 / 0.19 = 0.0020526."""
    assert DECAY == 0.9
    auto = AutoBeta(1, 1e9, CPU)
    auto.add(torch.tensor(0.001))
    auto.add(torch.tensor(0.003))
    assert float(auto.value()) == pytest.approx(2 * math.log(4) / (0.00039 / 0.19), rel=1e-5)


@pytest.mark.parametrize(("size", "beta"), [(1.0, 100), (0.0, 5000), (1e-9, 5000)])
def test_floor_and_ceiling(size, beta) -> None:
    auto = AutoBeta(100, 5000, CPU)
    auto.add(torch.tensor(size))
    assert float(auto.value()) == beta


def test_a_resumed_average_goes_on_alike() -> None:
    one, other = AutoBeta(1, 1e9, CPU), AutoBeta(1, 1e9, CPU)
    one.add(torch.tensor(0.002))
    other.load(one.state())
    for auto in (one, other):
        auto.add(torch.tensor(0.004))
    assert torch.equal(one.value(), other.value())


# --- in training ---

ON = {"auto_beta": "on", "beta": None, "steps": 8, "learning_rate": 1e-2}


def test_a_round_starts_at_the_ceiling_and_records_each_steps_beta() -> None:
    trainer = make_trainer(**ON, beta_floor=1.0)
    records = train_steps(trainer)
    betas = [r["beta"] for r in records]
    assert betas[:2] == [5000, 5000]  # at the first step policy and reference agree, so no margin is known
    assert betas[-1] < 5000 and len(records[0]) == len(records[-1])
    assert "margin_size" not in records[0]


def test_a_fixed_beta_is_not_recorded() -> None:
    assert "beta" not in train_steps(make_trainer(steps=2))[0]


def test_the_average_is_over_all_pairs_of_a_step() -> None:
    """Two forwards of two pairs give the beta of one forward of four."""
    parts = steps_of(make_trainer(moved=True, **ON, batch_size=2, accumulation=2), 0, 1)
    whole = steps_of(make_trainer(moved=True, **ON, batch_size=4), 0, 1)
    assert 100 < whole[1]["beta"] < 5000
    # Two forwards draw other noise than one, so the margins differ; the same draws at the level low do not.
    low = make_trainer(moved=True, **ON, batch_size=4, memory="low")
    assert steps_of(low, 0, 1)[1]["beta"] == pytest.approx(whole[1]["beta"], rel=1e-3)
    assert parts[1]["beta"] > 0


def test_an_interrupted_round_goes_on_with_the_same_betas() -> None:
    kept: dict[int, tuple[dict, list]] = {}
    whole = make_trainer(**ON, checkpoint_every=4)
    records = train_steps(whole, save=lambda step, state, new: kept.update({step: (state, new)}))
    resumed = make_trainer(**ON, checkpoint_every=4)
    resumed.load_state(kept[4][0])
    again = train_steps(resumed, 4, earlier=kept[4][1])
    assert [r["beta"] for r in again] == [r["beta"] for r in records]
    assert difference(resumed.state(), whole.state()) == 0
