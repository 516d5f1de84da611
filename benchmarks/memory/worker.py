"""Predictions and measurements of one model, in a process that can import ComfyUI (common/in_comfyui.py)."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from ...dpo_core.peak import peak_bytes, reset_peak
from ...dpo_core.training.memory.predict import predict_sampling, predict_step
from ...dpo_core.training.trainer import Trainer
from .live import live_peak
from .models import MODELS, build, trainer_of, training


def predictions(
    name: str, weights: str, sides: Sequence[int], pairs: Sequence[int], levels: Sequence[str]
) -> list[dict[str, Any]]:
    """Predicted bytes of every case: a training step at each level, and one picture's sampling (level "sampling")."""
    rows = []
    for side in sides:
        model = build(name, weights, side)
        about = {"model": name, "parameters": sum(p.numel() for p in model.denoiser.parameters())}
        about |= {"weights": weights, "side": side}
        with training(model):
            for count in pairs:
                trainer = trainer_of(model, count)
                about["rank"], about["targets"] = trainer.adapter.settings.rank, trainer.adapter.settings.targets
                for level in levels:
                    begun = time.perf_counter()
                    found = predict_step(trainer, level)
                    row = {"pairs": count, "level": level, "weights_bytes": found.weights, "peak_bytes": found.peak}
                    rows.append(about | row | {"seconds": time.perf_counter() - begun})
            rows.append(about | {"pairs": 0, "level": "sampling"} | _sampling(model, trainer))
        print(f"{MODELS[name]['title']}, {weights}, {side} px: done", file=sys.stderr, flush=True)
    return rows


def _sampling(model: Any, trainer: Trainer) -> dict[str, int]:
    """One picture with guidance: two rows."""
    noised, times = torch.randn(2, *model.latent_shape), model.draw_timesteps(2, torch.Generator().manual_seed(0))
    found = predict_sampling(model, trainer.adapter, noised, times, model.encode_prompts(["a dog"] * 2))
    return {"weights_bytes": found.weights, "peak_bytes": found.peak}


def measurement(name: str, weights: str, side: int, pairs: int, level: str) -> dict[str, Any]:
    """The second step of a real training, with its peak of live bytes and of the process, beside the prediction."""
    cpu = torch.device("cpu")
    model = build(name, weights, side, real=True)
    gc.collect()
    with training(model, real=True):
        trainer = trainer_of(model, pairs, level)
        predicted = predict_step(trainer, level).peak
        reset_peak(cpu)
        resting = peak_bytes(cpu)
        begun = time.perf_counter()
        live = live_peak(trainer, level)
        seconds = time.perf_counter() - begun
    held = sum(p.nbytes for p in model.denoiser.parameters())
    return {
        "model": name, "weights": weights, "side": side, "pairs": pairs, "level": level, "predicted_bytes": predicted,
        "live_bytes": live, "ratio": predicted / live, "resident_bytes": peak_bytes(cpu), "resting_bytes": resting,
        "resident_added": peak_bytes(cpu) - resting, "predicted_added": predicted - held, "seconds": seconds,
    }  # fmt: skip
