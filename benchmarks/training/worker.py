"""One variant of the training benchmark in a process of its own: seconds a step, peak memory, phases and floating-point
operations.

python -m dreambooth_dpo.benchmarks.training.worker '{"model": "toybox", ...}'     (see Task; prints one line of JSON)
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from ...dpo_core.peak import peak_bytes, reset_peak, synchronise
from ...dpo_core.settings import AdapterSettings, TrainSettings
from ...dpo_core.training.adapter import Adapter
from ...dpo_core.training.dataset import PairData
from ...dpo_core.training.memory.compile import compiled
from ...dpo_core.training.memory.levels import at_level
from ...dpo_core.training.trainer import Trainer
from .diffusers_recipe import DiffusersRecipe
from .models import Subject, subject

PHASES = ("data", "reference", "policy forward", "backward", "optimizer")


@dataclass(frozen=True)
class Task:
    """What one process measures.

    `variant`: "ours" or "peer"; `settings`: fields of TrainSettings; `flops`: count one step, untimed.
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
    """Steps before the clock starts: caches, allocators and, where it is on, the compiler."""

    @property
    def train(self) -> TrainSettings:
        given = {
            "batch_size": self.batch,
            "steps": 10_000,
            "warmup_steps": 0,
            "schedule": "constant",
            "learning_rate": 1e-5,
        }
        return TrainSettings(**{**given, **(self.settings or {})})

    @property
    def adapter(self) -> AdapterSettings:
        return AdapterSettings(rank=self.rank, alpha=float(self.rank), targets=self.targets)


class Watch:
    """Adds up wall seconds by phase, waiting for the device at both ends; off, it costs nothing and waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on, self.seconds = device, False, dict.fromkeys(PHASES, 0.0)

    def timed(self, phase: str, call: Callable) -> Callable:
        def measured(*args, **kwargs):
            if not self.on:
                return call(*args, **kwargs)
            synchronise(self.device)
            begun = clock(self.device)
            try:
                return call(*args, **kwargs)
            finally:
                synchronise(self.device)
                self.seconds[phase] += clock(self.device) - begun

        return measured

    def watch(self, owner: object, **phases: str) -> None:
        """Time the owner's methods, phase by method's name (spaces as underscores)."""
        for method, phase in phases.items():
            setattr(owner, method, self.timed(phase.replace("_", " "), getattr(owner, method)))


def clock(device: torch.device) -> float:
    """Seconds: on the CPU those that this process has computed for, so that a busy machine counts less; by the wall on
    a GPU.
    """
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def prompts(count: int) -> list[str]:
    return [f"a photo of a sks robot on ground {i % 10}" for i in range(count)]


@contextmanager
def ours(task: Task, found: Subject, watch: Watch):
    """The pack's own trainer on latents as its sampler keeps them; yields (call of a step, seconds that the bank took,
    its forwards).
    """
    draws = torch.Generator().manual_seed(0)
    model = found.make(task.train.precision)
    winners, losers = (torch.randn(task.batch, *found.latent, generator=draws) for _ in range(2))
    data = PairData(winners, losers, model.encode_prompts(prompts(task.batch)))
    adapter = Adapter(found.pipe.unet, task.adapter)
    trainer = Trainer(
        model, adapter, data, task.train.model_copy(update={"steps": task.warm_up + 2 * task.steps + 2}), 0
    )
    watch.watch(
        trainer,
        _batch="data",
        _reference="reference",
        _policy="policy_forward",
        _backward="backward",
        _optimize="optimizer",
    )
    settings = task.train
    blocks = at_level(model.denoiser, trainer.level, settings.compile)
    with (
        model.training(),
        blocks,
        adapter.attached(),
        compiled(model.denoiser, model.device) if settings.compile else nullcontext(),
    ):
        synchronise(watch.device)
        begun = clock(watch.device)
        trainer.fill_bank()
        synchronise(watch.device)
        known = int(trainer.bank.known.sum()) if trainer.bank else 0
        yield trainer.advance, clock(watch.device) - begun, known


@contextmanager
def peer(task: Task, found: Subject, watch: Watch):
    draws = torch.Generator().manual_seed(0)
    pixels = torch.rand(task.batch, 6, found.resolution, found.resolution, generator=draws) * 2 - 1
    tokenizer = found.pipe.tokenizer
    length = tokenizer.model_max_length
    ids = tokenizer(
        prompts(task.batch), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    ).input_ids
    recipe = DiffusersRecipe(found, task.adapter, task.train, pixels, ids)
    # Before errors(), which reference() calls as well: that call is timed by reference() alone.
    plain = recipe.errors
    watch.watch(recipe, batch="data", errors="policy_forward", backward="backward", optimize="optimizer")
    timed, without = recipe.errors, recipe.reference

    def reference(*args):
        recipe.errors = plain
        try:
            return without(*args)
        finally:
            recipe.errors = timed

    recipe.reference = watch.timed("reference", reference)
    yield recipe.step, 0.0, 0


def measure(task: Task) -> dict:
    """All figures of one variant."""
    device = torch.device(task.device)
    found = subject(task.model, task.resolution, task.device)
    watch = Watch(device)
    reset_peak(device)
    resting = peak_bytes(device)
    with {"ours": ours, "peer": peer}[task.variant](task, found, watch) as (step, bank_seconds, bank_draws):
        for i in range(task.warm_up):
            step(i)
        if task.flops:
            return {"flops": count_flops(lambda: step(task.warm_up))}
        synchronise(device)
        seconds, walls = _times(lambda i: step(task.warm_up + i), task.steps, device)
        peak = max(resting, peak_bytes(device))  # the kernel counts pages by thread and may lag behind by some
        phases = _phases(step, task, watch) if task.phases else {}
        kept = (
            kept_bytes(lambda: step(task.warm_up + 2 * task.steps + 1), found.pipe.unet)
            if _keeps_plainly(task.train)
            else None
        )
    return {
        "seconds_per_step": seconds, "wall_seconds_per_step": walls, "pairs_per_second": task.batch / seconds,
        "peak_bytes": peak, "resting_bytes": resting, "kept_bytes": kept, "phases": phases,
        "bank_seconds_per_draw": bank_seconds / bank_draws if bank_draws else 0.0,
    }  # fmt: skip


def _times(step: Callable, steps: int, device: torch.device) -> tuple[float, float]:
    """Median seconds and wall seconds of a step; on a GPU the mean of all, which are not waited for one by one."""
    if device.type == "cuda":
        begun = time.perf_counter()
        for i in range(steps):
            step(i)
        synchronise(device)
        mean = (time.perf_counter() - begun) / steps
        return mean, mean
    seconds, walls = [], []
    for i in range(steps):
        wall, begun = time.perf_counter(), clock(device)
        step(i)
        seconds.append(clock(device) - begun)
        walls.append(time.perf_counter() - wall)
    return statistics.median(seconds), statistics.median(walls)


def _phases(step: Callable, task: Task, watch: Watch) -> dict[str, float]:
    """Mean seconds of each phase, in a pass of its own: waiting at every border makes it slower than the timed one."""
    watch.on = True
    count = max(1, task.steps // 2)
    for i in range(count):
        step(task.warm_up + task.steps + i)
    watch.on = False
    return {name: total / count for name, total in watch.seconds.items()}


def _keeps_plainly(settings: TrainSettings) -> bool:
    """Whether what forward keeps lies there until backward: checkpointed blocks keep again what they compute again."""
    return settings.memory in ("auto", "fast") and not settings.compile


def kept_bytes(call: Callable[[], object], module: torch.nn.Module) -> int:
    """Bytes that autograd keeps of activations between forward and backward in a call; a storage counts once,
    parameters do not.
    """
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and (storage := tensor.untyped_storage()).data_ptr() not in own:
            found[storage.data_ptr()] = storage  # held, so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in found.values())


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a call, with its backward; the rest
    is small.
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
