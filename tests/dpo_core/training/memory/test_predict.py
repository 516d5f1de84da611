"""Prediction of a training step's memory, against real steps of the toybox's UNet; what it leaves as it was."""

from __future__ import annotations

import logging

import pytest
import torch

from dreambooth_dpo.benchmarks.memory.live import live_peak
from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.folder import RunFolder
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.adapter import Adapter
from dreambooth_dpo.dpo_core.training.dataset import PairData
from dreambooth_dpo.dpo_core.training.memory import fit
from dreambooth_dpo.dpo_core.training.memory.fit import level_that_fits, starting_level
from dreambooth_dpo.dpo_core.training.memory.levels import LEVELS
from dreambooth_dpo.dpo_core.training.memory.predict import Predicted, predict_sampling, predict_step
from dreambooth_dpo.dpo_core.training.round import train_round
from dreambooth_dpo.dpo_core.training.trainer import Trainer
from dreambooth_dpo.toybox.models import weights_folder

GB = 10**9


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(weights_folder("pipeline"), "cpu")


def toybox_trainer(pipe, pairs: int = 2, precision: str = "fp32", **settings: object) -> Trainer:
    model = DiffusersTextToImage(pipe, precision)
    draws = torch.Generator().manual_seed(3)
    latents = torch.randn(2 * pairs, 4, 16, 16, generator=draws)
    data = PairData(latents[:pairs], latents[pairs:], model.encode_prompts([f"a robot {i}" for i in range(pairs)]))
    adapter = Adapter(model.denoiser, AdapterSettings(rank=2, alpha=2.0, targets="attention"), seed=0)
    return Trainer(model, adapter, data, TrainSettings(batch_size=pairs, warmup_steps=0, **settings), 11)


@pytest.mark.parametrize("level", LEVELS[:3])
def test_a_step_is_predicted(pipe, level: str) -> None:
    trainer = toybox_trainer(pipe, memory=level)
    assert predict_step(trainer, level).peak == pytest.approx(live_peak(trainer, level), rel=0.03)


def test_streamed_weights_count_while_they_are_there(pipe) -> None:
    trainer = toybox_trainer(pipe, memory="stream")
    predicted, real = predict_step(trainer, "stream"), live_peak(trainer, "stream")
    assert predicted.peak == pytest.approx(real, rel=0.05)
    assert predicted.peak < predict_step(trainer, "low").peak - 0.5 * predicted.weights


def test_several_forwards_of_a_step_are_predicted(pipe) -> None:
    trainer = toybox_trainer(pipe, memory="low", accumulation=2, loser_guard=0.6)
    assert predict_step(trainer, "low").peak == pytest.approx(live_peak(trainer, "low"), rel=0.03)


def test_a_model_under_autocast_is_predicted() -> None:
    trainer = toybox_trainer(load_pipeline(weights_folder("pipeline"), "cpu"), 1, "bf16", memory="fast")
    assert predict_step(trainer, "fast").peak == pytest.approx(live_peak(trainer, "fast"), rel=0.03)


def test_sampling_needs_less_than_training(pipe) -> None:
    trainer = toybox_trainer(pipe)
    batch = trainer._batch(0, 0)
    found = predict_sampling(trainer.model, trainer.adapter, batch.noised[:2], batch.times[:2], batch_rows(batch.cond))
    assert found.weights < found.peak < predict_step(trainer, "low").peak


def batch_rows(cond: dict) -> dict:
    return {key: value[:2] for key, value in cond.items()}


def test_model_adapter_and_trainer_stay_as_they_are(pipe) -> None:
    trainer = toybox_trainer(pipe)
    denoiser = trainer.model.denoiser
    tensors = [t for m in denoiser.modules() for held in (m._parameters, m._buffers) for t in held.values()]
    own = [*filter(lambda t: t is not None, tensors), *trainer.parameters]
    values = [t.detach().clone() for t in own]
    hooks = [len(m._forward_hooks) for m in denoiser.modules()]
    for level in LEVELS:
        predict_step(trainer, level)
    after = [t for m in denoiser.modules() for held in (m._parameters, m._buffers) for t in held.values()]
    assert all(a is b for a, b in zip(tensors, after, strict=True))
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(own, values, strict=True))
    assert not any("forward" in m.__dict__ for m in denoiser.modules())
    assert hooks == [len(m._forward_hooks) for m in denoiser.modules()]
    assert not trainer.optimizer.state and trainer.model.device == torch.device("cpu")


# --- the decision ---

PEAKS = {"fast": 20 * GB, "checkpointing": 11 * GB, "low": 9 * GB, "stream": 4 * GB}


@pytest.mark.parametrize(
    ("available", "level"),
    [(23, "fast"), (22, "checkpointing"), (12.3, "checkpointing"), (12.2, "low"), (9.9, "stream"), (1, "stream")],
)
def test_the_first_level_that_fits_into_nine_tenths(available: float, level: str) -> None:
    """20 / 0.9 = 22.2, 11 / 0.9 = 12.22, 9 / 0.9 = 10; where none fits, the last is tried."""
    assert level_that_fits(PEAKS, available * GB, 24 * GB, "") == level


def test_what_the_device_cannot_hold_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"predicted 4\.0 GB at memory level stream for 2 pairs, but the device has 3\.9 "
    ):
        level_that_fits(PEAKS, 3 * GB, 3.9 * GB, "2 pairs")
    only = {"fast": 20 * GB}
    with pytest.raises(UserError, match=r"level fast .* has 12\.0 GB.*Set memory to auto or stream"):
        level_that_fits(only, 10 * GB, 12 * GB, "2 pairs")
    assert level_that_fits(only, 10 * GB, 21 * GB, "2 pairs") == "fast", "too little is free, but not in all"


def on_a_card(trainer: Trainer, free: float, total: float) -> Trainer:
    """The trainer's model says that it has a GPU with this memory."""
    trainer.model.memory_for_training = lambda: (free, total)
    trainer.model.device = torch.device("cuda")
    return trainer


def given(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    def predict(_trainer: Trainer, level: str) -> Predicted:
        asked.append(level)
        return Predicted(0, GB, PEAKS[level])

    monkeypatch.setattr(fit, "predict_step", predict)


def test_auto_starts_at_the_level_that_fits(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """11 GB free and 1 GB of adapter that is there already: 12 available, 10.8 usable; low takes 9."""
    asked: list[str] = []
    given(monkeypatch, asked)
    assert starting_level(on_a_card(toybox_trainer(pipe), 11 * GB, 24 * GB)) == "low"
    assert asked == ["fast", "checkpointing", "low"], "a level that is not reached is not predicted"


def test_a_chosen_level_stays_or_is_refused(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, [])
    assert starting_level(on_a_card(toybox_trainer(pipe, memory="fast"), 2 * GB, 24 * GB)) == "fast"
    with pytest.raises(UserError, match="predicted 20.0 GB at memory level fast for 2 pairs of latents of 16x16"):
        starting_level(on_a_card(toybox_trainer(pipe, memory="fast"), 2 * GB, 16 * GB))


def test_a_failed_prediction_changes_nothing_and_is_logged(pipe, caplog) -> None:
    trainer = toybox_trainer(pipe)
    predict = trainer.model.predict

    def reads_values(*args):
        found = predict(*args)
        if float(found.sum()) > 0:
            return found
        return 2 * found

    trainer.model.predict = reads_values
    with caplog.at_level(logging.INFO):
        assert starting_level(on_a_card(trainer, GB, GB)) == "fast"
    assert "training memory cannot be predicted (" in caplog.text and "starting at level 'fast'" in caplog.text


def test_on_a_cpu_the_level_stays(pipe, caplog) -> None:
    trainer = toybox_trainer(pipe)
    trainer.model.memory_for_training = lambda: (10**6, 10**6)
    assert starting_level(trainer) == "fast" and "of main memory are available" in caplog.text


def test_without_known_memory_nothing_is_predicted(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    given(monkeypatch, asked)
    trainer = toybox_trainer(pipe)
    assert starting_level(trainer) == "fast"
    trainer.model.memory_for_training = lambda: (100 * GB, 100 * GB)
    assert starting_level(trainer) == "fast" and not asked, "on a CPU with much memory it is not worth it"


def test_a_round_keeps_its_level_and_is_not_predicted_again(pipe, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    given(monkeypatch, asked)
    trainer = toybox_trainer(pipe, steps=1)
    trainer.model.memory_for_training = lambda: (GB, GB)
    monkeypatch.setattr(fit, "WORTH", 10**9)
    monkeypatch.setitem(PEAKS, "low", 1)
    with RunFolder(tmp_path / "run") as run:
        run.set_fact("memory", "low")
        train_round(run, 0, trainer.model, trainer.adapter, trainer.data, trainer.settings, seed=1)
        assert run.fact("memory") == "low" and not asked
