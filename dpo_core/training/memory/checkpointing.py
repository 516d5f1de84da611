"""Gradient checkpointing by blocks: a block's saved tensors are recomputed in backward instead of being kept.

Why not torch.utils.checkpoint: when a block writes in place into a tensor that one of its layers has saved (`y =
norm(x); x += f(y)`, as in blocks of ComfyUI's Flux and Chroma), its gradients are silently wrong. Its recompute keeps
aliases of the saved tensors, and saved-tensor hooks disable autograd's check for such writes. Cloning the block's
inputs does not help, because the write follows the save. Here the forward notes which saved tensors are written to
later in the block, and the recompute keeps copies of those.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ...errors import UserError
from ..blocks import numbered_blocks

_BLOCKS = re.compile(
    r"(down_blocks|up_blocks)\.\d+\.(resnets|attentions)\.\d+"  # diffusers UNet
    r"|mid_block\.(resnets|attentions)\.\d+"
    r"|(input_blocks|output_blocks)\.\d+\.\d+"  # the original (ComfyUI's) UNet
    r"|middle_block\.\d+"
    # transformers:
    r"|(double_blocks|single_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|blocks|layers)\.\d+"
)


_LAYERS = re.compile(r"(.+\.)?transformer_blocks\.\d+")
"""Transformer layers inside the attention blocks of both UNets; a block of SDXL has up to ten."""


def checkpointed_blocks(denoiser: nn.Module, layers: bool = False) -> dict[str, nn.Module]:
    """The denoiser's blocks to checkpoint, by full name; none lies inside another.

    With `layers`, a block that holds transformer layers is replaced by those layers. A denoiser without a known block
    name is searched for numbered blocks. Raises UserError when it has none.
    """
    blocks: dict[str, nn.Module] = {}
    for name, module in denoiser.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in blocks)
        # Containers are never called themselves.
        if _BLOCKS.fullmatch(name) and not inside and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            blocks[name] = module
    blocks = blocks or numbered_blocks(denoiser)
    if not blocks:
        raise UserError(
            f"gradient checkpointing finds no blocks in {type(denoiser).__name__}. Train this model "
            "without checkpointing (memory: fast), with a smaller train.batch_size and more train.accumulation."
        )
    return dict(part for block in blocks.items() for part in _layers(*block)) if layers else blocks


def _layers(name: str, block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The transformer layers inside a block, or the block itself."""
    inside = ((f"{name}.{n}", m) for n, m in block.named_modules() if n)
    return [(n, m) for n, m in inside if _LAYERS.fullmatch(n)] or [(name, block)]


@contextmanager
def gradient_checkpointing(denoiser: nn.Module, layers: bool = False) -> Iterator[None]:
    """Inside, each block keeps only its inputs for backward and recomputes the rest there.

    Without gradients a block runs as usual. The blocks are those of `checkpointed_blocks`; with `layers` they are
    smaller, which lowers the peak memory of the recompute. On exit every block gets its own forward back, also after an
    error.

    Gradients equal those of the plain forward, except for the order in which several uses of one input are summed (a
    few 1e-7 relative). Hooks on layers inside a block (the adapter's) run in the recompute too, so at backward they
    must still be attached, with the same weights and mode. A block gets copies of its tensor arguments, so its writes
    do not reach the caller. Other arguments are passed on unchanged; the recompute sees dictionaries and lists as they
    were at forward.

    Raises UserError as `checkpointed_blocks` does. Backward raises RuntimeError when the recompute saves other tensors
    than forward did (changed hooks, or a block that is not deterministic), when an input of a block was modified from
    outside in between, and for second derivatives.
    """
    blocks = list(checkpointed_blocks(denoiser, layers).values())
    before = [block.__dict__.get("forward") for block in blocks]
    latest = _Latest()
    try:
        for block in blocks:
            block.forward = _recomputing(block.forward, latest)
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.forward = forward


class _Latest:
    """The call that was recomputed last, the only one that holds recomputed tensors.

    Some of a call's tensors may never be asked for, as those of layers that do not act on the loss. They are dropped
    when the next call is recomputed; should one be asked for after all, its call is recomputed again.
    """

    def __init__(self) -> None:
        self.call: weakref.ref[_Call] | None = None

    def begins(self, call: _Call) -> None:
        earlier = self.call() if self.call is not None else None
        if earlier is not None and earlier is not call:
            earlier.values.clear()
        self.call = weakref.ref(call)


def _recomputing(forward: Callable, latest: _Latest) -> Callable:
    @wraps(forward)
    def recomputed(*args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        arguments = {**dict(enumerate(args)), **kwargs}
        return _Call(forward, arguments, latest).first(arguments)

    return recomputed


class _Inputs(torch.autograd.Function):
    """Autograd node that saves the tensor inputs of a block call.

    Saved this way they are counted, offloaded and checked against later writes like the saved tensors of any op.
    """

    @staticmethod
    def forward(ctx, anchor: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return torch.empty_like(anchor)

    @staticmethod
    def backward(ctx, *_gradients: torch.Tensor) -> None:
        raise AssertionError("no gradient reaches this node: its output is not used")


class _Call:
    """One call of a block: its arguments (by position or name) and its saved tensors, numbered in the order of saving.

    `kinds`: shape, dtype and device of each saved tensor. `written`: those modified after their save. `values`: the
    recomputed tensors that backward has not used yet.
    """

    def __init__(self, forward: Callable, arguments: dict[int | str, object], latest: _Latest) -> None:
        self.forward, self.latest = forward, latest
        self.tensor_keys = [k for k, v in arguments.items() if isinstance(v, torch.Tensor)]
        tensors = [arguments[k] for k in self.tensor_keys]
        # Keep the output, not only its node: PyTorch 2.11 frees the saved tensors of a node when its output is gone.
        self.inputs = _Inputs.apply(torch.empty(0, requires_grad=True), *tensors)
        self.others = {k: _copied(v) for k, v in arguments.items() if k not in self.tensor_keys}
        self.autocasts = _autocasts({t.device.type for t in tensors} | {"cpu"})
        self.kinds: list[tuple] = []
        self.written: set[int] = set()
        self.values: dict[int, torch.Tensor] = {}

    def first(self, arguments: dict[int | str, object]) -> object:
        """Run the block and return its result.

        Of the saved tensors only their kinds are kept, and which of them were modified after their save.
        """
        saved: list[tuple[torch.Tensor, int]] = []

        def pack(tensor: torch.Tensor) -> int:
            saved.append((tensor, tensor._version))
            return len(saved) - 1

        try:
            with saved_tensors_hooks(pack, self._unpack):
                result = self._run(arguments)
            self.kinds = [_kind(tensor) for tensor, _ in saved]
            self.written = {i for i, (tensor, version) in enumerate(saved) if tensor._version != version}
            return result
        finally:
            saved.clear()  # Breaks a reference cycle: the graph holds `pack`, which holds the list.

    def _run(self, arguments: dict[int | str, object]) -> object:
        # Copies: a block that writes into its inputs must not change the inputs of the recompute.
        values = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
        positions = sorted(k for k in values if isinstance(k, int))
        return self.forward(*(values[k] for k in positions), **{k: v for k, v in values.items() if isinstance(k, str)})

    def _unpack(self, index: int) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("gradient checkpointing supports first derivatives only; leave create_graph off")
        if index not in self.values:
            self.latest.begins(self)
            self.values = dict(enumerate(self._recompute()))
        return self.values.pop(index)

    def _recompute(self) -> list[torch.Tensor]:
        saved: list[torch.Tensor] = []

        def pack(tensor: torch.Tensor) -> int:
            index = len(saved)
            saved.append(tensor.detach().clone() if index in self.written else tensor.detach())
            return index

        tensors = dict(zip(self.tensor_keys, self.inputs.grad_fn.saved_tensors, strict=True))
        # Copied again, so that a second backward through a retained graph starts from the same state.
        others = {k: _copied(v) for k, v in self.others.items()}
        with ExitStack() as stack:
            for state in self.autocasts:
                stack.enter_context(torch.autocast(**state))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(pack, saved.__getitem__))
            self._run(tensors | others)
        if [_kind(tensor) for tensor in saved] != self.kinds:
            raise RuntimeError(
                f"a checkpointed block saved {len(saved)} tensors in the recompute and {len(self.kinds)} in forward, "
                "or tensors of another shape or dtype: the adapter's mode changed between forward and backward, or the "
                "block is not deterministic."
            )
        return saved


def _kind(tensor: torch.Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device


def _copied(value: object) -> object:
    """A deep copy of dictionaries and lists (hosts count blocks in such an argument); other values unchanged."""
    if type(value) is dict:
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if type(value) is list else value


def _autocasts(device_types: set[str]) -> list[dict[str, object]]:
    """The current autocast state of these device types, as arguments of torch.autocast.

    The recompute needs it, because backward runs outside forward's autocast context or in another thread.
    """
    cache = torch.is_autocast_cache_enabled()
    return [
        {
            "device_type": d,
            "enabled": torch.is_autocast_enabled(d),
            "dtype": torch.get_autocast_dtype(d),
            "cache_enabled": cache,
        }
        for d in sorted(device_types)
        if torch.amp.is_autocast_available(d)
    ]
