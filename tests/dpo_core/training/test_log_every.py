"""Metrics that are checked only every `log_every` steps: same records, slightly later guards, no bad state saved."""

from __future__ import annotations

import pytest
import torch
from loops import Poisoned, difference
from trainers import make_data, make_trainer, steps_of

from dreambooth_dpo.dpo_core.training import dataset as pair_data
from dreambooth_dpo.dpo_core.training.dataset import resident, to_device
from dreambooth_dpo.dpo_core.training.pending import TrainingStopped
from dreambooth_dpo.dpo_core.training.steps import train_steps


@pytest.mark.parametrize("every", [2, 5, 100])
def test_records_and_weights_do_not_depend_on_it(every: int) -> None:
    one, many = make_trainer(steps=12, checkpoint_every=7), make_trainer(steps=12, checkpoint_every=7, log_every=every)
    told: list[int] = []
    assert train_steps(many, tell=lambda r: told.append(r["step"])) == train_steps(one)
    assert difference(many.state(), one.state()) == 0 and told == list(range(12))


def test_metrics_are_fetched_when_due_and_before_every_save() -> None:
    fetched, trainer = [], make_trainer(steps=11, checkpoint_every=5, log_every=3)
    fetch = trainer.fetch
    trainer.fetch = lambda steps: fetched.append([s.step for s in steps]) or fetch(steps)
    train_steps(trainer)
    assert fetched == [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10]]


@pytest.mark.parametrize(("at", "last_saved"), [(0, 0), (3, 0), (4, 4), (6, 4), (7, 4)])
def test_a_nan_step_is_never_saved(at: int, last_saved: int) -> None:
    trainer = make_trainer(Poisoned(at), steps=8, checkpoint_every=4, log_every=3)
    states = {0: trainer.state()}
    with pytest.raises(TrainingStopped, match=f"at step {at}:") as caught:
        train_steps(trainer, save=lambda step, state, fresh: states.update({step: state}))
    assert max(states) == last_saved and difference(trainer.state(), states[last_saved]) == 0
    assert [r["step"] for r in caught.value.records] == list(range(last_saved, at))
    assert all(bool(t.isfinite().all()) for t in trainer.state().values())


def test_the_winner_alarm_stops_at_the_same_step() -> None:
    ends = []
    for every in (1, 4):
        trainer = make_trainer(
            steps=8, checkpoint_every=8, learning_rate=1.0, warmup_steps=0, winner_error_collapse=0.01, log_every=every
        )
        with pytest.raises(TrainingStopped, match="collapsing") as caught:
            train_steps(trainer)
        ends.append((str(caught.value), caught.value.records))
    assert ends[0] == ends[1]


def test_pairs_stay_where_they_are_on_the_cpu() -> None:
    data = make_data()
    assert resident(data, torch.device("cpu")) is data


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks whether a GPU is waited for: needs one")
def test_nothing_in_a_step_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(log_every=5, reference_bank=2)
    device = torch.device("cuda")
    trainer.model.device = device
    trainer.model.denoiser.to(device)
    trainer = type(trainer)(
        trainer.model,
        type(trainer.adapter)(trainer.model.denoiser, trainer.adapter.settings),
        make_data(),
        trainer.settings,
        1,
    )
    assert trainer.data.winners.is_cuda
    monkeypatch.setattr(pair_data, "RESIDENT_SHARE", 0.0)
    assert not resident(make_data(), device).winners.is_cuda and to_device(torch.zeros(2), device).is_cuda
    steps_of(trainer, 0)
    with trainer.adapter.attached():
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.advance(1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
