"""The memory of a training, predicted before anything is drawn: refused, said, or left alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.settings import AdapterSettings, TrainSettings
from dreambooth_dpo.dpo_core.training.memory import fit
from dreambooth_dpo.dpo_core.training.memory.before import Fit, fit_before
from dreambooth_dpo.dpo_core.training.memory.predict import Predicted, predict_step
from dreambooth_dpo.dpo_core.training.trainer import Trainer
from dreambooth_dpo.toybox.models import weights_folder

GB = 10**9
ADAPTER, SHAPE = AdapterSettings(rank=2, alpha=2.0), (4, 16, 16)
SETTINGS = TrainSettings(batch_size=2, objective="reward_gap")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> DiffusersTextToImage:
    """The toybox's model; it says that it is on a GPU of 24 GB, of which 10 are free."""
    found = DiffusersTextToImage(load_pipeline(weights_folder("pipeline"), "cpu"), "fp32")
    encode = found.encode_prompts
    monkeypatch.setattr(found, "encode_prompts", lambda prompts: encode(prompts), raising=False)

    @contextmanager
    def training(stream: bool | None = False) -> Iterator[None]:
        yield

    monkeypatch.setattr(found, "training", training, raising=False)
    monkeypatch.setattr(found, "memory_for_training", lambda: (10 * GB, 24 * GB), raising=False)
    return found


def on_a_card(model: DiffusersTextToImage, monkeypatch: pytest.MonkeyPatch, peaks: dict[str, int]) -> list[str]:
    asked: list[str] = []

    def predict(trainer: Trainer, level: str) -> Predicted:
        asked.append(f"{level} {tuple(trainer.data.winners.shape)}")
        return Predicted(0, GB, peaks[level])

    cond = model.encode_prompts(["a robot"] * 2)
    monkeypatch.setattr(model, "encode_prompts", lambda prompts: cond)
    monkeypatch.setattr(model, "device", torch.device("meta"))  # neither a CPU nor a GPU that is not here
    monkeypatch.setattr(fit, "predict_step", predict)
    return asked


def test_the_level_that_fits_is_said(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 GB free and 1 GB of adapter: 0.9 * 11 = 9.9 usable."""
    asked = on_a_card(model, monkeypatch, {"fast": 12 * GB, "checkpointing": 9 * GB})
    found = fit_before(model, ADAPTER, SETTINGS, SHAPE, "a robot")
    assert found == Fit("checkpointing", 9 * GB, 24 * GB)
    assert asked == ["fast (2, 4, 16, 16)", "checkpointing (2, 4, 16, 16)"]
    assert found.words() == "Memory: 9.0 GB predicted for training (level checkpointing), of 24.0 GB."


def test_a_training_that_cannot_fit_is_refused(model, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_card(model, monkeypatch, dict.fromkeys(("fast", "checkpointing", "low", "stream"), 30 * GB))
    with pytest.raises(UserError, match=r"predicted 30\.0 GB at memory level stream .* has 24\.0 GB"):
        fit_before(model, ADAPTER, SETTINGS, SHAPE, "a robot")


def test_a_failed_prediction_stops_nothing(model, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    on_a_card(model, monkeypatch, {})
    with caplog.at_level(logging.INFO):
        assert fit_before(model, ADAPTER, SETTINGS, SHAPE, "a robot") is None
    assert "cannot be predicted before the start (KeyError" in caplog.text


def test_on_a_cpu_nothing_is_predicted(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "predict_step", lambda *_: pytest.fail("predicted on a CPU"))
    assert fit_before(model, ADAPTER, SETTINGS, SHAPE, "a robot") is None


def test_the_real_prediction_runs_on_pairs_of_zeros(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step on tensors without data, on the CPU: the training's own figures."""
    from dreambooth_dpo.dpo_core.training.memory import before

    figures = {}

    def down(trainer: Trainer, free: float, all_levels: bool) -> tuple[dict[str, int], float]:
        figures["fast"] = predict_step(trainer, "fast").peak
        return figures, free

    monkeypatch.setattr(before, "peaks_down", down)
    found = before._predicted(model, ADAPTER, SETTINGS, SHAPE, "a robot")
    assert found.level == "fast" and 1e7 < found.peak == figures["fast"] < 1e9
