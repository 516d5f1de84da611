"""Predicts a training's memory before anything is drawn, so that a run whose training cannot fit is refused in time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...errors import UserError
from ...protocols import TextToImage
from ...settings import AdapterSettings, TrainSettings
from ..adapter import Adapter
from ..dataset import PairData
from ..trainer import Trainer
from .fit import level_that_fits, peaks_down, what_trains
from .levels import streams


@dataclass(frozen=True)
class Fit:
    """The memory level at which training would start, its predicted peak, and the device's memory in all; in bytes."""

    level: str
    peak: float
    total: float

    def words(self) -> str:
        """ "Memory: 12.3 GB predicted for training (level checkpointing), of 24.0 GB." """
        return (
            f"Memory: {self.peak / 1e9:.1f} GB predicted for training (level {self.level}), of {self.total / 1e9:.1f} "
            "GB."
        )


def fit_before(
    model: TextToImage, adapter: AdapterSettings, settings: TrainSettings, latent_shape: Sequence[int], prompt: str
) -> Fit | None:
    """Predict a training of this model on pairs of latents of this shape [C, (1,) h, w], as training itself will do.

    None on a CPU, for a compiled denoiser, where the model tells no memory, and where the prediction fails, which is
    logged. Takes seconds. Raises UserError as `level_that_fits`, when the last level needs more than the device has.
    """
    asked = getattr(model, "memory_for_training", None)
    if model.device.type == "cpu" or settings.compile or asked is None:
        return None
    try:
        return _predicted(model, adapter, settings, latent_shape, prompt)
    except UserError:
        raise
    except Exception as error:  # a model's code may do anything on tensors without data
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logging.info("training memory cannot be predicted before the start (%s)", said)
        return None


def _predicted(
    model: TextToImage, adapter: AdapterSettings, settings: TrainSettings, latent_shape: Sequence[int], prompt: str
) -> Fit | None:
    pairs = settings.batch_size
    cond = model.encode_prompts([prompt] * pairs)
    with model.training(streams(settings)):
        memory = model.memory_for_training()
        if memory is None:
            return None
        latents, gaps = torch.zeros(pairs, *latent_shape), torch.ones(pairs)
        low_rank = Adapter(model.denoiser, adapter, device=torch.device("cpu"))
        trainer = Trainer(model, low_rank, PairData(latents, latents, cond, gaps), settings, 0)
        peaks, available = peaks_down(trainer, memory[0], all_levels=True)
        level = level_that_fits(peaks, available, memory[1], what_trains(trainer))
    return Fit(level, peaks[level], memory[1])
