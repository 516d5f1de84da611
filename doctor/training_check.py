"""Trains at every memory level, with the engine's own self-test and trainer, on any backend.

Runs in the model's process.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..dpo_core.peak import peak_bytes, reset_peak, synchronise
from ..dpo_core.protocols import TextToImage
from ..dpo_core.settings import AdapterSettings, TrainSettings
from ..dpo_core.training.adapter import Adapter
from ..dpo_core.training.dataset import PairData
from ..dpo_core.training.memory.levels import LEVELS, at_level
from ..dpo_core.training.self_test import self_test
from ..dpo_core.training.trainer import Trainer

ADAPTER = AdapterSettings(rank=8, alpha=8.0)
PROMPTS = ("a photo of a sks dog on a beach", "a sks dog in the snow")
Gradients = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Subject:
    """A model to train.

    latent: its latents' shape [C, h, w]. names: diffusers names of its layers. Both are functions, because they may
    need the loaded model.
    """

    model: TextToImage
    latent: Callable[[], tuple[int, ...]]
    names: Callable[[], dict[str, str]]
    flow: bool = False
    """Whether it is a flow model, which has another beta."""


@dataclass(frozen=True)
class Level:
    """Result of training at one memory level.

    seconds: median of a step. cpu_seconds: CPU time of all threads of the process in that step. peak: bytes
    (peak.peak_bytes). If not `fits`, the other values are unset.
    """

    name: str
    fits: bool
    seconds: float = 0.0
    peak: int = 0
    gradients: Gradients | None = None
    self_test: float | None = None
    loss: float = 0.0
    cpu_seconds: float = 0.0


def tiny(subject: Subject) -> Iterator[Level]:
    """The self-check: a tiny model, two pairs, the gradient self-test and four steps at each level."""
    torch.set_num_threads(1)  # on models this small, several threads are slower than one
    return train_levels(subject, steps=3, pairs=2, test=True)


def train_levels(subject: Subject, steps: int, pairs: int, test: bool) -> Iterator[Level]:
    """Train at each level from the same adapter and pairs: one step whose gradients are kept, and `steps` timed ones.

    `test`: run the engine's gradient self-test first, at each level. Raises UserError where it fails.
    """
    for level in LEVELS:
        gc.collect()
        if subject.model.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            yield _train(subject, level, steps, pairs, test)
        except torch.OutOfMemoryError:
            yield Level(level, fits=False)


def _train(subject: Subject, level: str, steps: int, pairs: int, test: bool) -> Level:
    model, settings = subject.model, _settings(level, steps, pairs, subject.flow)
    reset_peak(model.device)  # before the model is loaded, so that its memory counts
    with model.training():
        adapter, data = _adapter(subject), _data(subject, pairs)
        with at_level(model.denoiser, level):
            error = self_test(model, adapter, data, level) if test else None
            trainer = Trainer(model, adapter, data, settings, seed=0)
            with adapter.attached():
                first = trainer.fetch([trainer.advance(0)])[0]
                gradients = {
                    f"{n}.{k}": p.grad.cpu().clone()
                    for n, layer in adapter.policy.items()
                    for k, p in layer.named_parameters()
                }
                seconds = sorted(_timed(trainer, step + 1) for step in range(steps))
        wall, cpu = seconds[len(seconds) // 2]
        return Level(level, True, wall, peak_bytes(model.device), gradients, error, first["loss"], cpu)


def _timed(trainer: Trainer, step: int) -> tuple[float, float]:
    """Wall-clock seconds and CPU seconds of a step."""
    synchronise(trainer.model.device)
    begun, worked = time.perf_counter(), time.process_time()
    trainer.fetch([trainer.advance(step)])
    synchronise(trainer.model.device)
    return time.perf_counter() - begun, time.process_time() - worked


def _settings(level: str, steps: int, pairs: int, flow: bool) -> TrainSettings:
    """Training settings without gradient clipping, so that the gradients of backward are compared."""
    return TrainSettings(
        steps=steps + 1, batch_size=pairs, memory=level, schedule="constant", warmup_steps=0, learning_rate=1e-5,
        max_grad_norm=1e6, beta=100.0 if flow else 2000.0,
    )  # fmt: skip


def _adapter(subject: Subject) -> Adapter:
    """An adapter with an effect, so that both of its matrices have gradients.

    The reference is its copy, so that no loss is saturated.
    """
    adapter = Adapter(subject.model.denoiser, ADAPTER, 0, subject.model.device, subject.names())
    generator = torch.Generator().manual_seed(1)
    state = {
        k: 0.01 * torch.randn(v.shape, generator=generator) if k.endswith("up") else v
        for k, v in adapter.state().items()
    }
    adapter.load(state)
    adapter.freeze_reference()
    return adapter


def _data(subject: Subject, pairs: int) -> PairData:
    """Random latents, with the prompts in turn."""
    draws = torch.Generator().manual_seed(2)
    winners, losers = (torch.randn(pairs, *subject.latent(), generator=draws) for _ in range(2))
    return PairData(winners, losers, subject.model.encode_prompts([PROMPTS[i % len(PROMPTS)] for i in range(pairs)]))


SMALLEST = 1e-4
"""Share of the whole gradient's norm; a matrix with a smaller gradient is compared against this share.

In some layers the gradient is 0 up to rounding (a shift of a whole group before its norm), and the relative difference
of rounding noise is 1.
"""


def difference(one: Gradients, other: Gradients) -> float:
    """Largest relative difference of a matrix's gradient; infinite if one is not finite or the layers differ."""
    if one.keys() != other.keys():
        return float("inf")
    floor = SMALLEST * math.sqrt(sum(float(g.norm()) ** 2 for g in one.values()))
    worst = 0.0
    for name, gradient in one.items():
        size, apart = max(float(gradient.norm()), floor), float((other[name] - gradient).norm())
        share = apart / size if size else float(apart > 0)
        if not math.isfinite(share):  # max() would ignore NaN
            return math.inf
        worst = max(worst, share)
    return worst


def limit_of(model: TextToImage) -> float:
    """How far the gradients of two levels may differ by rounding; wrong ones seen so far differed by 9 % or more.

    Pairs one after another have other shapes than all at once, for which a GPU uses other kernels (TF32: 11 bits).
    """
    exact = model.precision == "fp32" and all(p.element_size() >= 4 for p in model.denoiser.parameters())
    return 5e-2 if not exact else 1e-3 if model.device.type == "cpu" else 2e-2


def device_facts(device: torch.device) -> dict[str, Any]:
    """Kind and name of the device, for the JSON file."""
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": str(device), "device_name": named, "torch": torch.__version__}
