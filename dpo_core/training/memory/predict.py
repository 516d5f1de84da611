"""Predicts the peak memory of a training step and of sampling, by running them on tensors without data.

The trainer's own step (`Trainer.advance`) runs with the model's own `predict`, the adapter's hooks and the memory
level's recomputation (fake_bytes.py): an operation takes microseconds, whatever its size. The prediction does not know
kernels' workspaces, the allocator's losses and the device's context (about 0.5 GB on CUDA), so leave room for them.

Deviations from a real step: the inputs of one forward are drawn before, since a draw needs values; reference errors
come from a forward also where a reference cache has them (the forward that fills the cache); of several forwards in a
step one runs, with the gradients of others there; the optimizer's moments exist, as from the second step on; the
update of the weights is counted and not computed; of a list of equal blocks two and three run (repeats.py). Prompts
are those of the pairs of the first forward.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...protocols import Cond, TextToImage
from ..adapter import Adapter
from ..dataset import Batch
from ..trainer import Trainer
from .fake_bytes import FakeBytes, NeedsDevice
from .levels import at_level
from .repeats import of_all_blocks
from .stream import Mover

STATES = 2
"""Copies of the trainer's state at a save: the last good one and the new one."""


@dataclass(frozen=True)
class Predicted:
    """Bytes on the model's device.

    weights: of the denoiser, all of them; adapter: of policy and reference; peak: the most at a time, with both (at the
    level "stream" with the weights that are there at a time).
    """

    weights: int
    adapter: int
    peak: int


def predict_step(trainer: Trainer, level: str) -> Predicted:
    """Peak memory of a training step at a memory level. Takes seconds.

    Call it inside `model.training()` and outside `adapter.attached()`. Model, adapter and trainer stay as they are.
    Raises what the model's code raises on tensors without data.
    """

    def run(exact: bool) -> list[int]:
        return of_all_blocks(trainer.model.denoiser, lambda: _figures(FakeBytes(exact), trainer, level))

    try:
        weights, adapter, step, save = run(False)
    except NeedsDevice:
        weights, adapter, step, save = run(True)
    return Predicted(weights, adapter, max(step, save))


def _figures(count: FakeBytes, trainer: Trainer, level: str) -> tuple[int, int, int, int]:
    """Bytes of (weights, adapter, the peak of a step, the peak of a save after it)."""
    batch = trainer._batch(0, 0)
    there = copy.copy(trainer)
    there.level = level
    piece = there._pieces(batch)[0]
    with _rehearsal(count, trainer.model, trainer.adapter, level) as (model, adapter, weights, adapter_bytes):
        step = _Step(trainer, model, adapter, level, _batch_without_data(count, piece))
        labels = trainer.data.named(trainer.data.label_fields)
        step.data = replace(trainer.data, **{name: count.like(tensor) for name, tensor in labels.items()})
        step.weights = None if trainer.weights is None else count.like(trainer.weights)
        waiting = [] if piece is batch else [_batch_without_data(count, batch)]
        mover = _Counting(count)
        with count:
            step.have_moments()
            good = _block(count, step.state_bytes())  # train_steps holds the last good state
            with _level(count, model.denoiser, level, mover), adapter.attached():
                step.advance(0)
        peak, after = count.peak, count.live
        save = after + (STATES - 1) * step.state_bytes()
        del waiting, good
        ahead = max(mover.sizes, default=0) if trainer.mover.ahead else 0
        return weights, adapter_bytes, peak + ahead, save


def predict_sampling(
    model: TextToImage, adapter: Adapter, noised: torch.Tensor, times: torch.Tensor, cond: Cond
) -> Predicted:
    """Peak memory of one forward without gradients. noised: [n, C, h, w], two rows for a picture with guidance."""

    def run() -> tuple[int, int, int]:
        count = FakeBytes()
        with (
            _rehearsal(count, model, adapter, "fast") as (ghost, own, weights, adapter_bytes),
            count,
            torch.no_grad(),
            own.attached(),
        ):
            ghost.predict(count.counted(noised), count.counted(times), _cond_without_data(count, cond))
            return weights, adapter_bytes, count.peak

    return Predicted(*of_all_blocks(model.denoiser, run))


class _Step(Trainer):
    """A trainer whose step has one forward, of given inputs, and starts with moments, average and gradients as a later
    one.
    """

    def __init__(self, trainer: Trainer, model: TextToImage, adapter: Adapter, level: str, piece: Batch) -> None:
        settings = trainer.settings.model_copy(update={"reference_bank": 0})
        super().__init__(model, adapter, trainer.data, settings, trainer.seed)
        self.level, self.piece = level, piece
        self.foreach = trainer.model.device.type == "cuda"  # torch's choice for AdamW
        self.moments: list[torch.Tensor] = []

    def have_moments(self) -> None:
        self.moments = [torch.empty_like(weight) for weight in self.parameters for _ in range(2)]
        if self.average is not None:
            self.average.means = self.adapter.state()

    def state_bytes(self) -> int:
        """Bytes of `state`: policy, reference, moments, and the moving average where it is on."""
        frozen = [tensor for pair in self.adapter._frozen.values() for tensor in pair]
        average = self.parameters if self.average is not None else []
        return sum(tensor.nbytes for tensor in (*self.parameters, *frozen, *self.moments, *average))

    def forwards(self, step: int) -> Iterator[Batch]:
        if self.settings.accumulation > 1 or len(self.piece.picks) < self.settings.batch_size:
            for weight in self.parameters:  # as an earlier forward of the step left them
                weight.grad = torch.empty_like(weight)
        yield self.piece

    def _backward(self, loss: torch.Tensor) -> None:
        # What torch.autograd.backward calls; that itself switches off FakeBytes' attention, which the recompute needs.
        run = torch.autograd.Variable._execution_engine.run_backward
        run((loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)

    def _optimize(self) -> torch.Tensor:
        """The update's own tensors: two of every weight at once, or of one weight after the other."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        for group in [self.parameters] if self.foreach else [[weight] for weight in self.parameters]:
            temporary = [torch.empty_like(weight) for weight in group for _ in range(2)]
            del temporary
        return norm


class _Counting(Mover):
    """A mover whose copies count. sizes: bytes of each turn's weights."""

    def __init__(self, count: FakeBytes) -> None:
        super().__init__("cpu")
        self.count, self.sizes, self._moved = count, [], 0

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        before, self.count.paused = self.count.paused, False
        try:
            self._moved += tensor.nbytes
            return tensor.detach().clone()
        finally:
            self.count.paused = before

    def turn(self) -> None:
        self.sizes.append(self._moved)
        self._moved = 0


@contextmanager
def _level(count: FakeBytes, denoiser: nn.Module, level: str, mover: Mover) -> Iterator[None]:
    """`at_level`, where what it does to put weights into main memory does not count."""
    with ExitStack() as stack:
        count.paused = True
        try:
            stack.enter_context(at_level(denoiser, level, mover=mover))
        finally:
            count.paused = False
        mover.turn()  # what was moved so far stays for the whole time
        if isinstance(mover, _Counting):
            mover.sizes.clear()
        yield


def _block(count: FakeBytes, size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=count.device)


@contextmanager
def _rehearsal(
    count: FakeBytes, model: TextToImage, adapter: Adapter, level: str
) -> Iterator[tuple[Any, Adapter, int, int]]:
    """(the model on weights without data, an adapter of the same layers, bytes of weights, bytes of the adapter).

    Inside, the denoiser's modules hold parameters and buffers without data; on exit each gets its own ones back.
    """
    ghost = copy.copy(model)
    ghost.device = torch.device("cpu")
    with _weights_without_data(count, model.denoiser) as all_weights:
        weights = sum(_bytes(tensor) for _, tensor in all_weights)
        for original, tensor in all_weights:  # a host may keep some in main memory (its low VRAM mode)
            there = level != "stream" and (original.is_meta or original.device.type == model.device.type)
            (count.add if there else count.ignore)([tensor])
        before = count.live
        own = _adapter_without_data(count, model.denoiser, adapter)
        yield ghost, own, weights, count.live - before


@contextmanager
def _weights_without_data(count: FakeBytes, denoiser: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Yields the denoiser's own parameters and buffers, each with what takes its place inside."""
    before = [(m, m._parameters, m._buffers) for m in denoiser.modules()]
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def fake(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        if id(tensor) not in made:
            like = count.like(tensor)
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = tensor, nn.Parameter(like, requires_grad=False) if is_weight else like
            if (state := getattr(tensor, "quant_state", None)) is not None:  # the scales of bitsandbytes' 4-bit weights
                made[id(tensor)][1].quant_state = state
        return made[id(tensor)][1]

    try:
        for module, parameters, buffers in before:
            module._parameters = {name: fake(value) for name, value in parameters.items()}
            module._buffers = {name: fake(value) for name, value in buffers.items()}
        yield list(made.values())
    finally:
        for module, parameters, buffers in before:
            module._parameters, module._buffers = parameters, buffers


def _bytes(tensor: torch.Tensor) -> int:
    if (state := getattr(tensor, "quant_state", None)) is not None:
        return tensor.nbytes + state.absmax.nbytes
    flatten = getattr(tensor, "__tensor_flatten__", None)
    return tensor.nbytes if flatten is None else sum(_bytes(getattr(tensor, name)) for name in flatten()[0])


def _adapter_without_data(count: FakeBytes, denoiser: nn.Module, adapter: Adapter) -> Adapter:
    """An adapter of the same layers (those that are in the denoiser now), whose weights count."""
    own, present = copy.copy(adapter), {id(module) for module in denoiser.modules()}
    own.layers = {name: module for name, module in adapter.layers.items() if id(module) in present}
    own.policy = {name: _layer_without_data(count, adapter.policy[name]) for name in own.layers}
    own._frozen = {name: tuple(map(count.counted, adapter._frozen[name])) for name in own.layers}
    count.add(own.parameters())
    return own


def _layer_without_data(count: FakeBytes, layer: nn.Module) -> nn.Module:
    own = copy.copy(layer)
    own._parameters = {name: nn.Parameter(count.like(weight)) for name, weight in layer._parameters.items()}
    return own


def _cond_without_data(count: FakeBytes, cond: Cond) -> Cond:
    """Integers stay as they are, since a backend reads its own indices."""
    return {key: count.counted(value) if value.is_floating_point() else value for key, value in cond.items()}


def _batch_without_data(count: FakeBytes, batch: Batch) -> Batch:
    noised, target, times = map(count.counted, (batch.noised, batch.target, batch.times))
    return replace(batch, noised=noised, target=target, times=times, cond=_cond_without_data(count, batch.cond))
