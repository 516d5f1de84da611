"""Tests the moving average of the adapter's weights: its values by hand, resume, and what a round ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loops import adapters, changed, difference, make_loop, outcome
from pydantic import ValidationError
from trainers import make_trainer, steps_of

from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import TrainSettings
from dreambooth_dpo.dpo_core.training.memory.predict import predict_step
from dreambooth_dpo.dpo_core.training.weight_average import WeightAverage

DECAY = changed(train={"ema_decay": 0.5})


def set_to(trainer, value: float) -> None:
    with torch.no_grad():
        for weight in trainer.adapter.parameters():
            weight.fill_(value)


@pytest.mark.parametrize(
    ("decay", "means"),
    [(0.5, [1.0, 5 / 3, 4.25 / 1.75]), (1.0, [1.0, 1.5, 2.0]), (0.0, [1.0, 2.0, 3.0])],
)
def test_means_of_the_weights_1_2_3(decay: float, means: list[float]) -> None:
    """By hand for decay 0.5: (1/2 + 2) / 1.5 and (1/4 + 2/2 + 3) / 1.75."""
    trainer, average = make_trainer(), WeightAverage(decay)
    for step, expected in enumerate(means):
        set_to(trainer, step + 1.0)
        average.add(step, trainer.adapter)
        for mean in average.state().values():
            assert mean.double().numpy() == pytest.approx(expected, rel=1e-6)


def test_without_decay_the_mean_is_the_last_step_bit_for_bit() -> None:
    trainer = make_trainer(steps=3, ema_decay=0.0)
    steps_of(trainer, 0, 1, 2)
    assert difference(trainer.average.state(), trainer.adapter.state()) == 0


def test_a_round_ends_with_the_mean_of_its_steps() -> None:
    """Decay 1: the plain mean of the weights that the same steps leave without it."""
    plain, averaged = make_trainer(steps=3), make_trainer(steps=3, ema_decay=1.0)
    states = []
    for step in range(3):
        steps_of(plain, step)
        steps_of(averaged, step)
        states.append(plain.adapter.state())
    assert difference(averaged.adapter.state(), states[-1]) == 0  # the steps themselves do not see the average
    with averaged.averaged():
        inside = averaged.adapter.state()
    assert difference(averaged.adapter.state(), states[-1]) == 0
    averaged.average.put(averaged.adapter)
    expected = {name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]}
    assert difference(inside, averaged.adapter.state()) == 0
    assert difference(averaged.adapter.state(), expected) < 1e-7 < difference(states[-1], expected)


def test_off_is_the_default_and_changes_no_key() -> None:
    assert TrainSettings().ema_decay is None and "ema_decay" not in TrainSettings().described()
    assert TrainSettings(ema_decay=0.9).described()["ema_decay"] == 0.9
    assert not [name for name in make_trainer().state() if name.startswith("average.")]


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decays_outside_0_to_1_are_refused(decay: float) -> None:
    with pytest.raises(ValidationError, match="ema_decay"):
        TrainSettings(ema_decay=decay)


def test_a_checkpoint_without_average_is_loaded() -> None:
    """As an older version wrote it: the average then begins with the next step."""
    old = make_trainer(steps=3)
    steps_of(old, 0)
    trainer = make_trainer(steps=3, ema_decay=0.5)
    trainer.load_state(old.state())
    assert trainer.average.state() == {}
    steps_of(trainer, 1)
    assert difference(trainer.average.state(), trainer.adapter.state()) == 0


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [3, 6, 8])
def test_an_interrupted_run_ends_as_the_unbroken_one(tmp_path: Path, after: int) -> None:
    """Interrupted after some training steps, of two rounds of six with a checkpoint after every second."""
    seen = []

    def tell(stage: str, *_: object, **__: object) -> None:
        seen.append(stage)
        if sum(s.startswith("train") for s in seen) == after:
            raise Killed

    whole = make_loop(tmp_path / "whole", settings=DECAY)
    whole.go()
    with pytest.raises(Killed):
        make_loop(tmp_path / "broken", settings=DECAY, progress=tell).go()
    make_loop(tmp_path / "broken", settings=DECAY).go()
    broken = RunFolder(tmp_path / "broken")
    assert outcome(broken) == outcome(whole.run)
    for one, other in zip(adapters(broken), adapters(whole.run), strict=True):
        assert difference(one, other) == 0


def test_the_average_is_the_next_rounds_start_and_reference(tmp_path: Path) -> None:
    """The first rounds take the same steps; the averaged one ends elsewhere, and the second starts there."""
    plain, averaged = make_loop(tmp_path / "plain"), make_loop(tmp_path / "averaged", settings=DECAY)
    plain.go()
    averaged.go()
    assert plain.run.training(0) == averaged.run.training(0)
    assert difference(adapters(plain.run)[1], adapters(averaged.run)[1]) > 0
    first = averaged.run.training(1)[0]
    assert first["margin"] == pytest.approx(0, abs=1e-7)  # policy and reference are equal at the start of a round


def test_memory_prediction_counts_the_average() -> None:
    """One copy of the policy beside the step, and one in the last good state."""
    model_bytes = sum(w.nbytes for w in make_trainer().parameters)
    peaks = [predict_step(make_trainer(ema_decay=decay), "fast").peak for decay in (None, 0.9)]
    assert peaks[1] - peaks[0] >= 2 * model_bytes
