"""One variant of the training benchmark in a process of its own: seconds per step, peak memory, phases and
floating-point operations.

python -m dreambooth_dpo.benchmarks.training.worker '{"model": "toybox", ...}'     (see Task; prints one line of JSON)
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from ...dpo_core.peak import peak_bytes, reset_peak
from ...dpo_core.settings import AdapterSettings, TrainSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.dataset import PairData
from ...dpo_core.training.memory.compile import compiled
from ...dpo_core.training.memory.levels import at_level
from ...dpo_core.training.trainer import Trainer
from ..common.clock import Clock
from .diffusers_recipe import DiffusersRecipe
from .models import Subject, subject

PHASES = ("data", "reference", "policy forward", "backward", "optimizer")
Step = Callable[[int], object]


@dataclass(frozen=True)
class Task:
    """What one process measures.

    variant: "ours" or "peer". settings: fields of TrainSettings. flops: count the operations of one step, untimed.
    """

    model: str
    variant: str
    resolution: int
    batch: int
    steps: int
    device: str
    rank: int = 8
    targets: str = "attention"
    settings: dict | None = None
    flops: bool = False
    phases: bool = True
    warm_up: int = 2
    """Steps before the timed ones: caches, allocators and, with `compile`, the compiler."""

    @property
    def train(self) -> TrainSettings:
        given = {"batch_size": self.batch, "steps": 10_000, "warmup_steps": 0}
        return TrainSettings(**given | {"schedule": "constant", "learning_rate": 1e-5} | (self.settings or {}))

    @property
    def adapter(self) -> AdapterSettings:
        return AdapterSettings(rank=self.rank, alpha=float(self.rank), targets=self.targets)


def prompts(count: int) -> list[str]:
    return [f"a photo of a sks robot on ground {i % 10}" for i in range(count)]


@contextmanager
def ours(task: Task, found: Subject, clock: Clock) -> Iterator[tuple[Step, float, int]]:
    """The pack's trainer on latents as its sampler keeps them: (one step, seconds to fill the bank, its forwards)."""
    draws = torch.Generator().manual_seed(0)
    settings, model = task.train, found.make(task.train.precision)
    winners, losers = (torch.randn(task.batch, *found.latent, generator=draws) for _ in range(2))
    data = PairData(winners, losers, model.encode_prompts(prompts(task.batch)))
    adapter = Adapter(found.pipe.unet, task.adapter)
    whole = settings.model_copy(update={"steps": task.warm_up + 2 * task.steps + 2})
    trainer = Trainer(model, adapter, data, whole, 0)
    methods = dict(zip(("_batch", "reference", "_policy", "_backward", "_optimize"), PHASES, strict=True))
    with (
        clock.timing(trainer, methods),
        model.training(),
        at_level(model.denoiser, trainer.level, settings.compile),
        adapter.attached(),
        compiled(model.denoiser, model.device) if settings.compile else nullcontext(),
    ):
        begun = clock.now()
        trainer.fill_cache()
        yield trainer.advance, clock.now() - begun, int(trainer.cache.known.sum()) if trainer.cache else 0


@contextmanager
def peer(task: Task, found: Subject, clock: Clock) -> Iterator[tuple[Step, float, int]]:
    """The recipe of diffusers' example on images and token ids: (one step, 0, 0), as it has no bank."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.rand(task.batch, 6, found.resolution, found.resolution, generator=draws) * 2 - 1
    tokenizer = found.pipe.tokenizer
    whole = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    ids = tokenizer(prompts(task.batch), **whole, return_tensors="pt").input_ids
    recipe = DiffusersRecipe(found, task.adapter, task.train, pixels, ids)
    with clock.timing(recipe, dict(zip(("batch", "reference", "policy", "backward", "optimize"), PHASES, strict=True))):
        yield recipe.step, 0.0, 0


def measure(task: Task) -> dict:
    """All figures of one variant."""
    device, clock = torch.device(task.device), Clock(task.device, PHASES)
    clock.on = False
    found = subject(task.model, task.resolution, task.device)
    reset_peak(device)
    resting = peak_bytes(device)
    with {"ours": ours, "peer": peer}[task.variant](task, found, clock) as (step, bank_seconds, bank_draws):
        for i in range(task.warm_up):
            step(i)
        if task.flops:
            return {"flops": count_flops(lambda: step(task.warm_up))}
        seconds, walls = _times(lambda i: step(task.warm_up + i), task.steps, clock)
        peak = max(resting, peak_bytes(device))  # the kernel counts pages per thread and may lag behind a little
        phases = _phases(step, task, clock) if task.phases else {}
        last = task.warm_up + 2 * task.steps + 1
        kept = kept_bytes(lambda: step(last), found.pipe.unet) if _keeps_plainly(task.train) else None
    return {
        "seconds_per_step": seconds,
        "seconds_are": clock.kind,
        "wall_seconds_per_step": walls,
        "pairs_per_second": task.batch / seconds,
        "peak_bytes": peak,
        "resting_bytes": resting,
        "kept_bytes": kept,
        "phases": phases,
        "bank_seconds_per_draw": bank_seconds / bank_draws if bank_draws else 0.0,
    }


def _times(step: Step, steps: int, clock: Clock) -> tuple[float, float]:
    """Median seconds and wall seconds of a step; on a GPU the mean of all, without waiting for each."""
    if clock.device.type == "cuda":
        begun = clock.now()
        for i in range(steps):
            step(i)
        mean = (clock.now() - begun) / steps
        return mean, mean
    seconds, walls = [], []
    for i in range(steps):
        wall, begun = time.perf_counter(), clock.now()
        step(i)
        seconds.append(clock.now() - begun)
        walls.append(time.perf_counter() - wall)
    return statistics.median(seconds), statistics.median(walls)


def _phases(step: Step, task: Task, clock: Clock) -> dict[str, float]:
    """Mean seconds of each phase, in separate steps: waiting for the device between phases makes them slower."""
    clock.on = True
    count = max(1, task.steps // 2)
    for i in range(count):
        step(task.warm_up + task.steps + i)
    clock.on = False
    return {name: total / count for name, total in clock.seconds.items()}


def _keeps_plainly(settings: TrainSettings) -> bool:
    """Whether tensors kept by the forward stay until the backward; checkpointed blocks keep recomputed ones as well."""
    return settings.memory in ("auto", "fast") and not settings.compile


def kept_bytes(call: Callable[[], object], module: torch.nn.Module) -> int:
    """Bytes of activations that autograd keeps between forward and backward of a call. A storage counts once,
    parameters do not count.
    """
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and (storage := tensor.untyped_storage()).data_ptr() not in own:
            found[storage.data_ptr()] = storage  # a reference, so that its address is not reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in found.values())


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a call, with its backward. Other
    operations are few.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    print(json.dumps(measure(task)))


if __name__ == "__main__":
    main()
