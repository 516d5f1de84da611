"""Training by each objective, with reward gaps and with the loser guard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import changed, difference, make_loop
from resuming import resumes_bit_for_bit
from trainers import PAIRS, forward, make_data, make_trainer, steps_of

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.objectives import PAIR_OBJECTIVES
from dreambooth_dpo.dpo_core.training.steps import train_steps

BETAS = {"ipo": 500.0, "mapo": 0.1, "kto": 300.0}


@pytest.mark.parametrize("objective", [*PAIR_OBJECTIVES, "dgpo"])
def test_every_objective_trains(objective: str) -> None:
    """The loss falls; winner and loser errors are logged relative to the reference for every objective."""
    changes = {
        "objective": objective,
        "beta": BETAS.get(objective, 2000.0),
        "steps": 30,
        "batch_size": 5,
        "learning_rate": 3e-3,
    }
    records = train_steps(make_trainer(gaps=torch.linspace(1, 3, PAIRS), **changes))
    assert records[0]["winner_error"] == records[0]["margin"] == 0.0
    assert sum(r["loss"] for r in records[-10:]) < sum(r["loss"] for r in records[:10])
    assert records[-1]["margin"] > 0 and "loser_scale" not in records[0]


def test_the_loss_uses_the_gaps_of_its_pairs() -> None:
    """At B = 0 the reward-gap loss is the mean squared gap of the batch's pairs."""
    trainer = make_trainer(objective="reward_gap", batch_size=3, gaps=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    picks = trainer.picks(2, 0)
    assert steps_of(trainer, 2)[0]["loss"] == pytest.approx(float(trainer.data.gaps[picks].square().mean()), rel=1e-6)


def test_pairs_of_a_run_have_their_gaps(tmp_path: Path) -> None:
    loop = make_loop(tmp_path / "run")
    loop.begin(0)
    loop.candidates(0)
    loop.pair(0)
    gaps = [p.gap for p in loop.run.pairs("round_0")]
    assert loop.pair_data(0).gaps.tolist() == pytest.approx(gaps, rel=1e-6) and any(gaps)


def test_missing_gaps_are_zeros_and_wrong_ones_are_refused() -> None:
    data = make_data(3)
    assert data.gaps.tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(UserError, match="2 reward gaps for 3 pairs"):
        PairData(data.winners, data.losers, data.cond, torch.ones(2))
    with pytest.raises(UserError, match=r"reward_gap.*these pairs have none"):
        make_trainer(objective="reward_gap")


def test_the_loser_guard_lowers_the_winners_error_further() -> None:
    """With the guard the winner's error falls further; the record has the mean scale, which is small at mu 0.9."""
    free, held = (
        train_steps(make_trainer(steps=20, batch_size=5, learning_rate=3e-3, loser_guard=mu)) for mu in (None, 0.9)
    )
    assert held[-1]["winner_error"] < free[-1]["winner_error"]
    assert all(0 < r["loser_scale"] < 0.5 for r in held) and all("loser_scale" not in r for r in free)
    assert held[0]["loss"] == free[0]["loss"]


def test_the_guards_scale_is_a_mean_over_parts_and_is_1_without_a_loser() -> None:
    trainer = make_trainer(moved=True, batch_size=2, accumulation=2, loser_guard=0.6)
    with trainer.adapter.attached():
        parts = [float(forward(trainer, 3, part)[1]["loser_scale"]) for part in range(2)]
    assert steps_of(trainer, 3)[0]["loser_scale"] == pytest.approx(sum(parts) / 2, rel=1e-6)
    plain, guarded = (make_trainer(steps=4, objective="raft", loser_guard=mu) for mu in (None, 0.9))
    train_steps(plain)
    assert [r["loser_scale"] for r in train_steps(guarded)] == [1.0] * 4
    assert difference(plain.state(), guarded.state()) == 0


def test_a_run_with_gaps_and_guard_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = changed(train={"objective": "reward_gap", "loser_guard": 0.6})
    whole = resumes_bit_for_bit(tmp_path, settings)
    assert all("loser_scale" in r for r in whole.run.training(1))
