"""diffusers' group offloading against the memory level "stream": bytes on a device stand-in, and the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from ...dpo_core.training.memory.checkpointing import gradient_checkpointing
from ...dpo_core.training.memory.stream import streamed
from ..common.device_stand_in import block_sizes, spoiled

WIDTH, BLOCKS = 64, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(torch.tanh(self.one(self.norm(x))))


class Blocks(nn.Module):
    """A transformer's skeleton. `checkpoint`: recompute the blocks as diffusers' models do."""

    checkpoint = False

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.start, self.blocks = nn.Linear(WIDTH, WIDTH), nn.ModuleList(Block() for _ in range(BLOCKS))
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        for block in self.blocks:
            x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False) if self.checkpoint else block(x)
        return x


class Offloaded(NamedTuple):
    """peak: the most weights on the device at a time, of all; left: after the step, of all. right: whether the result
    is finite and equal to that without offloading.
    """

    peak: float
    left: float
    right: bool


class _Device:
    """Counts copies of weights that something still refers to."""

    def __init__(self, model: nn.Module) -> None:
        self.true = {id(p): p.detach().clone() for p in model.parameters()}
        self.alive: list[tuple[StorageWeakRef, int]] = []
        self.peak = 0

    def bytes_there(self) -> int:
        self.alive = [(storage, size) for storage, size in self.alive if not storage.expired()]
        return sum(size for _, size in self.alive)

    def onload(self, parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            copy = self.true[id(parameter)].clone()
            self.alive.append((StorageWeakRef(copy.untyped_storage()), copy.nbytes))
            parameter.data = copy
        self.peak = max(self.peak, self.bytes_there())


@contextmanager
def group_offloaded(model: nn.Module) -> Iterator[_Device]:
    """Inside, diffusers' group offloading moves the model's blocks; weights that are offloaded are NaN."""
    from diffusers.hooks import apply_group_offloading
    from diffusers.hooks.group_offloading import ModuleGroup

    device, own = _Device(model), (ModuleGroup._onload_from_memory, ModuleGroup._offload_to_memory)

    def parameters(group: ModuleGroup) -> list[nn.Parameter]:
        return [p for module in group.modules for p in module.parameters()] + list(group.parameters)

    def offload(group: ModuleGroup) -> None:
        for parameter in parameters(group):
            parameter.data = torch.full_like(parameter.data, float("nan"))

    ModuleGroup._onload_from_memory = lambda group: device.onload(parameters(group))
    ModuleGroup._offload_to_memory = offload
    try:
        cpu = torch.device("cpu")
        apply_group_offloading(model, cpu, cpu, offload_type="block_level", num_blocks_per_group=1)
        yield device
    finally:
        ModuleGroup._onload_from_memory, ModuleGroup._offload_to_memory = own


def _inputs() -> torch.Tensor:
    return torch.linspace(-1, 1, 3 * WIDTH).view(3, WIDTH).requires_grad_()


def _result(model: nn.Module, train: bool) -> torch.Tensor:
    """The output, or the gradient of its squares."""
    x = _inputs()
    with torch.set_grad_enabled(train):
        y = model(x)
    return torch.autograd.grad(y.square().sum(), x)[0] if train else y


def offloads() -> dict[str, Offloaded]:
    """Figures of drawing and of training by group offloading, without and with checkpointing, and of "stream"."""
    total = sum(p.nbytes for p in Blocks().parameters())
    found = {}
    for name, train, checkpoint in (
        ("group offloading, drawing", False, False),
        ("group offloading, training", True, False),
        ("group offloading, training with checkpointing", True, True),
    ):
        model = Blocks()
        expected, model.checkpoint = _result(model, train), checkpoint
        with group_offloaded(model) as device:
            right = torch.allclose(_result(model, train), expected, rtol=1e-5, atol=1e-5)
            found[name] = Offloaded(device.peak / total, device.bytes_there() / total, right)
    model = Blocks()
    expected = _result(model, True)
    outside, _ = block_sizes(model)
    with spoiled(model) as mover:
        with streamed(model, mover), gradient_checkpointing(model, layers=True):
            right = torch.allclose(_result(model, True), expected, rtol=1e-5, atol=1e-5)
            left = mover.bytes_there() - outside
        found["stream, training"] = Offloaded(mover.peak / total, left / total, right)
    return found
