"""Memory level "stream": the weights of the blocks stay in main memory and come to the device one block at a time.

A block's turn begins when it is called, in forward or in the recompute of backward, and lasts until another block is
called. Checkpointing (checkpointing.py) recomputes a block right before its own backward, and autograd runs the nodes
of one block before those of an earlier one, so that each block needs two copies per step. Outside its turn the block
has its own tensors, which nothing writes to. A copy's memory is never used for another block's weights while something
refers to it: copies are new tensors, not views of a buffer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch
from torch import nn

from .checkpointing import checkpointed_blocks

Slot = tuple[dict, str]
"""A module's dictionary of parameters or buffers, and a name in it."""


class Mover:
    """Copies weights to a device, and is told when copies are no longer used.

    A subclass may stand in for a device. `ahead`: whether the block that is expected next is copied while one computes,
    which needs memory for both.
    """

    ahead = False

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device; quantized tensors move with their scales. May return the tensor itself."""
        with torch.no_grad(), _scales_kept(tensor):
            return tensor.to(self.device, non_blocking=True)

    def turn(self) -> None:
        """A turn begins: the copies of the last block are no longer used by operations that are queued from now on."""

    def early(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies for a later turn; `arrived` is called before they are used."""
        return [self.to_device(tensor) for tensor in tensors]

    def arrived(self) -> None:
        """The copies of `early` are used by operations that are queued from now on."""

    def leave(self, copies: Sequence[torch.Tensor]) -> None:
        """These copies are no longer used."""


@contextmanager
def _scales_kept(tensor: torch.Tensor) -> Iterator[None]:
    """Inside, bitsandbytes may move a 4-bit weight: `.to` moves the scales in place, which its copy shares with it.

    On exit the tensor has scales of its own again, where they were.
    """
    state = getattr(tensor, "quant_state", None)
    own = copy.copy(state)
    if getattr(state, "state2", None) is not None:
        own.state2 = copy.copy(state.state2)
    try:
        yield
    finally:
        if state is not None:
            tensor.quant_state = own


class CudaMover(Mover):
    """Copies the next block on a stream of its own, while the current one computes.

    That stream waits for the begin of the current turn. All copies that were given up before then may be overwritten
    after it, so their memory can be used again without `record_stream`, which not every tensor class supports.
    """

    ahead = True

    def __init__(self, device: torch.device | str) -> None:
        super().__init__(device)
        self.stream = torch.cuda.Stream(self.device)
        self.begun: torch.cuda.Event | None = None

    def turn(self) -> None:
        self.begun = torch.cuda.current_stream(self.device).record_event()

    def early(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if self.begun is not None:
            self.stream.wait_event(self.begun)
        with torch.cuda.stream(self.stream):
            return super().early(tensors)

    def arrived(self) -> None:
        torch.cuda.current_stream(self.device).wait_stream(self.stream)


def mover_for(device: torch.device) -> Mover:
    return CudaMover(device) if device.type == "cuda" else Mover(device)


class _Unit:
    """Tensors that come and go together: those of a block, or all outside the blocks."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.slots: list[Slot] = [
            (held, name)
            for module in modules
            for held in (module._parameters, module._buffers)
            for name, tensor in held.items()
            if tensor is not None
        ]
        self.own = [held[name] for held, name in self.slots]
        # A tensor that several modules share is copied once.
        self.distinct = list({id(tensor): tensor for tensor in self.own}.values())

    def install(self, copies: Sequence[torch.Tensor]) -> None:
        """Put the copies of `distinct` into the modules."""
        by_id = {id(tensor): copy for tensor, copy in zip(self.distinct, copies, strict=True)}
        for (held, name), tensor in zip(self.slots, self.own, strict=True):
            held[name] = by_id[id(tensor)]

    def restore(self) -> None:
        """Put the modules' own tensors back."""
        for (held, name), tensor in zip(self.slots, self.own, strict=True):
            held[name] = tensor


class _Turns:
    """Which block's weights are on the device.

    `learned`: the block that followed on (the block before, this block, whether gradients were recorded). The order of
    a training step repeats, so it is known after the first step.
    """

    def __init__(self, mover: Mover) -> None:
        self.mover = mover
        self.current: _Unit | None = None
        self.copies: list[torch.Tensor] = []
        self.next: tuple[_Unit, list[torch.Tensor]] | None = None
        self.place: tuple[_Unit | None, _Unit | None, bool] = (None, None, False)
        self.learned: dict[tuple, _Unit] = {}

    def begin(self, unit: _Unit) -> None:
        """Bring the block's weights; those of the block before leave first."""
        if unit is self.current:
            return
        before = self.current
        self.learned[self.place] = unit
        self._end()
        if self.next is not None and self.next[0] is unit:
            copies, self.next = self.next[1], None
            self.mover.arrived()
        else:
            self._drop_next()
            copies = [self.mover.to_device(tensor) for tensor in unit.distinct]
        self.current, self.copies = unit, copies
        self.place = (before, unit, torch.is_grad_enabled())
        unit.install(copies)
        self.mover.turn()

    def expect(self) -> None:
        """Copy the block ahead that followed here the last time, once the current block's work is queued."""
        unit = self.learned.get(self.place)
        if self.mover.ahead and self.next is None and unit is not None and unit is not self.current:
            self.next = unit, self.mover.early(unit.distinct)

    def _end(self) -> None:
        if self.current is not None:
            unit, copies, self.current, self.copies = self.current, self.copies, None, []
            unit.restore()
            self.mover.leave(copies)

    def _drop_next(self) -> None:
        if self.next is not None:
            self.mover.arrived()
            copies, self.next = self.next[1], None
            self.mover.leave(copies)

    def close(self) -> None:
        self._end()
        self._drop_next()


@contextmanager
def streamed(denoiser: nn.Module, mover: Mover) -> Iterator[None]:
    """Inside, a block's weights are on the device only during its turn; all other weights stay there.

    The blocks are those of `checkpointed_blocks` with `layers`. To be entered before `gradient_checkpointing` with
    `layers`, which needs the weights in both of a block's forwards. Weights that are on the device are moved to main
    memory first, and back on exit. On exit, also after an error, every module has its own tensors and forward, with
    the same values bit for bit. Raises UserError as `checkpointed_blocks` does.
    """
    blocks = list(checkpointed_blocks(denoiser, layers=True).values())
    with ExitStack() as stack:
        stack.enter_context(_in_main_memory(blocks))
        stack.enter_context(outside_blocks_placed(denoiser, mover))
        turns = _Turns(mover)
        stack.callback(turns.close)
        for block in blocks:
            stack.callback(_put_back, block, block.__dict__.get("forward"))
            block.forward = _taking_turns(block.forward, _Unit(block.modules()), turns)
        yield


@contextmanager
def outside_blocks_placed(denoiser: nn.Module, mover: Mover) -> Iterator[None]:
    """Inside, the weights and buffers outside the blocks of `streamed` are on the device.

    On exit every module has its own tensors. Raises UserError as `checkpointed_blocks` does.
    """
    inside = {id(m) for block in checkpointed_blocks(denoiser, layers=True).values() for m in block.modules()}
    unit = _Unit(m for m in denoiser.modules() if id(m) not in inside)
    copies = [mover.to_device(tensor) for tensor in unit.distinct]
    try:
        unit.install(copies)
        yield
    finally:
        unit.restore()
        mover.leave(copies)


def _taking_turns(forward: Callable, unit: _Unit, turns: _Turns) -> Callable:
    @wraps(forward)
    def taking_turns(*args: object, **kwargs: object) -> object:
        turns.begin(unit)
        result = forward(*args, **kwargs)
        turns.expect()
        return result

    return taking_turns


def _put_back(block: nn.Module, forward: Callable | None) -> None:
    block.__dict__.pop("forward", None)
    if forward is not None:
        block.forward = forward


@contextmanager
def _in_main_memory(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, the blocks' weights are in main memory; on exit they are where they were."""
    homes = [(m, device) for block in blocks for m in block.modules() if (device := _device(m)) is not None]
    try:
        for module, _ in homes:
            module.to("cpu")
        yield
    finally:
        for module, device in homes:
            module.to(device)


def _device(module: nn.Module) -> torch.device | None:
    """The device of a module's own tensors, if it is another one than main memory's."""
    own = [t for held in (module._parameters, module._buffers) for t in held.values() if t is not None]
    return next((t.device for t in own if t.device.type != "cpu"), None)
