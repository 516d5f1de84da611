"""A stand-in for a device with memory of its own, on a machine that has none: for the memory level "stream".

It shows two things that a CPU alone cannot: which weights are used while they are not on the device, and how many bytes
of weights are there at a time. Weights in main memory are filled with NaN (integers with their largest value), and only
a copy on the "device" has the true values; a copy is filled with NaN when it leaves. So any use outside a block's turn
ends in NaN gradients. Not simulated: speed, streams, pinned memory, the memory of activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from ...dpo_core.training.memory.checkpointing import checkpointed_blocks
from ...dpo_core.training.memory.stream import Mover


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that make up a tensor: its values and scales where it is quantized, else itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is not None:
        return [getattr(tensor, name) for name in flatten()[0]]
    state = getattr(tensor, "quant_state", None)
    # As plain tensors: GGUF's own class gives itself where a clone is asked for.
    return [tensor.as_subclass(torch.Tensor), *([] if state is None else [state.absmax])]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bytes, which can be compared and written for every type."""
    return tensor.detach().view(torch.uint8) if tensor.ndim else tensor.detach().view(1).view(torch.uint8)


def _share_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    places = {part.data_ptr() for part in parts_of(other)}
    return any(part.nbytes and part.data_ptr() in places for part in parts_of(one))


def spoil(tensor: torch.Tensor) -> None:
    """Fill a tensor with NaN; integers with their largest value (in a quantized tensor the scales are NaN)."""
    # A NaN of every floating-point type has all bits set.
    for part in parts_of(tensor):
        if part.dtype.is_floating_point:
            _bits(part).fill_(255)
        else:
            part.detach().fill_(torch.iinfo(part.dtype).max if part.dtype != torch.bool else True)


class StandIn(Mover):
    """A mover to memory that it counts. `peak`: the most bytes of weights that were there at a time.

    A copy counts until its last user lets go of it, autograd included, not only until it leaves. true: the values of
    the weights in main memory, by the identity of their tensors.
    """

    def __init__(self, true: dict[int, list[torch.Tensor]], ahead: bool) -> None:
        super().__init__("cpu")
        self.true, self.ahead = true, ahead
        self.alive: list[tuple[StorageWeakRef, int]] = []
        self.peak = self.moved = 0

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            # The classes of bitsandbytes and torchao do not know `copy`.
            copy = deepcopy(tensor) if hasattr(tensor, "quant_state") else tensor.to("cpu", copy=True)
            if _share_memory(copy, tensor):
                copy = deepcopy(tensor)
            if _share_memory(copy, tensor):
                raise AssertionError("a copy shares memory with its original")
        for part, value in zip(parts_of(copy), self.true[id(tensor)], strict=True):
            _bits(part).copy_(_bits(value))
            self.alive.append((StorageWeakRef(part.untyped_storage()), part.nbytes))
            self.moved += part.nbytes
        self.peak = max(self.peak, self.bytes_there())
        return copy

    def bytes_there(self) -> int:
        """Bytes of copies that something still refers to."""
        self.alive = [(storage, size) for storage, size in self.alive if not storage.expired()]
        return sum(size for _, size in self.alive)

    def leave(self, copies: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for copy in copies:
                spoil(copy)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [t for m in module.modules() for held in (m._parameters, m._buffers) for t in held.values() if t is not None]


def size_of(tensors: Sequence[torch.Tensor]) -> int:
    """Bytes of distinct tensors, with their scales."""
    return sum(part.nbytes for t in {id(t): t for t in tensors}.values() for part in parts_of(t))


def block_sizes(denoiser: nn.Module) -> tuple[int, list[int]]:
    """Bytes of the weights outside the blocks that are streamed, and of each block in order."""
    blocks = list(checkpointed_blocks(denoiser, layers=True).values())
    inside = {id(t) for block in blocks for t in _tensors(block)}
    return size_of([t for t in _tensors(denoiser) if id(t) not in inside]), [size_of(_tensors(b)) for b in blocks]


@contextmanager
def spoiled(denoiser: nn.Module, ahead: bool = False) -> Iterator[StandIn]:
    """Inside, the denoiser's weights in main memory are NaN, and the mover that is yielded brings the true ones.

    Raises AssertionError on exit where a module has another tensor than before, or a weight in main memory was written.
    """
    before = _tensors(denoiser)
    true = {id(t): [part.detach().clone() for part in parts_of(t)] for t in before}
    with torch.no_grad():
        for tensor in {id(t): t for t in before}.values():
            spoil(tensor)
    marks = {id(t): [_bits(part).clone() for part in parts_of(t)] for t in before}
    try:
        yield StandIn(true, ahead)
    finally:
        after = _tensors(denoiser)
        same = len(after) == len(before) and all(a is b for a, b in zip(after, before, strict=True))
        unwritten = all(
            torch.equal(_bits(part), mark) for t in before for part, mark in zip(parts_of(t), marks[id(t)], strict=True)
        )
        with torch.no_grad():
            for tensor in {id(t): t for t in before}.values():
                for part, value in zip(parts_of(tensor), true[id(tensor)], strict=True):
                    _bits(part).copy_(_bits(value))
    assert same, "a module was left with another tensor than its own"
    assert unwritten, "a weight in main memory was written"
