"""Gradient checkpointing by blocks: what a block saves for backward is computed again in backward instead of being
kept.

Not by torch.utils.checkpoint: where a block writes in place into a tensor that one of its layers has saved (`y =
norm(x); x += f(y)`, as blocks of ComfyUI's Flux and Chroma do), its gradients are wrong without a word. Its recompute
keeps aliases of what layers save, and saved-tensor hooks switch off autograd's own check for such writes; cloning the
block's inputs does not help, as the write follows the save. Here forward notes which saved tensors are written to later
in the block, and the recompute keeps copies of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from ...errors import UserError

_BLOCKS = re.compile(
    r"(down_blocks|up_blocks)\.\d+\.(resnets|attentions)\.\d+"  # diffusers UNet
    r"|mid_block\.(resnets|attentions)\.\d+"
    r"|(input_blocks|output_blocks)\.\d+\.\d+"  # the original (ComfyUI's) UNet
    r"|middle_block\.\d+"
    r"|(double_blocks|single_blocks|joint_blocks|transformer_blocks|single_transformer_blocks|blocks|layers)\.\d+"  # transformers
)


_LAYERS = re.compile(r"(.+\.)?transformer_blocks\.\d+")
"""Layers of the attention blocks of both UNets: ten of them lie in a block of SDXL."""


def checkpointed_blocks(denoiser: nn.Module, layers: bool = False) -> dict[str, nn.Module]:
    """Names and modules of the denoiser's blocks, chosen by name from the denoiser's root; none lies inside another.

    With `layers`, a block that holds transformer layers gives way to these. Raises UserError when the denoiser has no
    block of a known name.
    """
    found: dict[str, nn.Module] = {}
    for name, module in denoiser.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        # Containers are walked through by their owner and never called.
        if _BLOCKS.fullmatch(name) and not inside and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            found[name] = module
    if not found:
        raise UserError(
            f"{type(denoiser).__name__} has no blocks that gradient checkpointing knows by name. Train this model without checkpointing "
            "(memory: fast), at a smaller train.batch_size with more train.accumulation."
        )
    return dict(part for block in found.items() for part in _layers(*block)) if layers else found


def _layers(name: str, block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The transformer layers inside a block, or the block itself."""
    inside = ((f"{name}.{n}", m) for n, m in block.named_modules() if n)
    return [(n, m) for n, m in inside if _LAYERS.fullmatch(n)] or [(name, block)]


@contextmanager
def gradient_checkpointing(denoiser: nn.Module, layers: bool = False) -> Iterator[None]:
    """Inside, where autograd records, a block keeps its inputs alone and computes the rest again in backward; else it
    runs as it is.

    The blocks are those of `checkpointed_blocks`; smaller ones (`layers`) need less memory at once while they are
    computed again.

    Gradients are those of the plain forward, to the order in which uses of one input are summed (a few 1e-7 relative).
    Hooks on layers inside a block (the adapter's) act in the recompute too: backward must find them as forward did,
    attached, with the same weights and mode. It raises RuntimeError where hooks, or a block that is not deterministic,
    save other tensors than in forward; where an input of a block was written to from outside in between; and for second
    derivatives. A block sees copies of its tensor arguments: what it writes into them does not reach its caller. Other
    arguments are passed on as they are; the recompute sees dictionaries and lists as they stood in forward. Raises
    UserError as `checkpointed_blocks` does. Every block gets its own forward back in any case.
    """
    blocks = list(checkpointed_blocks(denoiser, layers).values())
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = _recomputing(block.forward)
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.forward = forward


def _recomputing(forward: Callable) -> Callable:
    @wraps(forward)
    def recomputed(*args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        arguments = {**dict(enumerate(args)), **kwargs}
        return _Call(forward, arguments).first(arguments)

    return recomputed


class _Inputs(torch.autograd.Function):
    """A node that keeps a call's tensors as any op keeps its own: counted, offloaded and guarded against later writes
    by autograd.
    """

    @staticmethod
    def forward(ctx, anchor: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(*tensors)
        return torch.empty_like(anchor)

    @staticmethod
    def backward(ctx, *_gradients: torch.Tensor) -> None:
        raise AssertionError("the node's output is used by nothing")


class _Call:
    """One call of a block: its arguments, by position or name, and what it saves for backward, numbered in the order of
    saving.
    """

    def __init__(self, forward: Callable, arguments: dict[int | str, object]) -> None:
        self.forward = forward
        self.tensor_keys = [k for k, v in arguments.items() if isinstance(v, torch.Tensor)]
        tensors = [arguments[k] for k in self.tensor_keys]
        # The output, not its node alone: PyTorch 2.11 frees what a node saved once its output is gone.
        self.inputs = _Inputs.apply(torch.empty(0, requires_grad=True), *tensors)
        self.others = {k: _copied(v) for k, v in arguments.items() if k not in self.tensor_keys}
        self.autocasts = _autocasts({t.device.type for t in tensors} | {"cpu"})
        self.kinds: list[tuple] = []
        self.written: set[int] = set()
        self.values: dict[int, torch.Tensor] = {}

    def first(self, arguments: dict[int | str, object]) -> object:
        """The block's result.

        Of what it saves, this keeps kinds only, and which tensors were written to between their save and the end.
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
            saved.clear()  # The graph holds `pack`, and the list by it: a cycle that nothing would free.

    def _run(self, arguments: dict[int | str, object]) -> object:
        # Copies: a block that writes into its inputs must not change what the recompute starts from.
        values = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
        positions = sorted(k for k in values if isinstance(k, int))
        return self.forward(*(values[k] for k in positions), **{k: v for k, v in values.items() if isinstance(k, str)})

    def _unpack(self, index: int) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("gradient checkpointing gives first derivatives only; leave create_graph off")
        if index not in self.values:
            self.values = dict(enumerate(self._recompute()))
        return self.values.pop(index)

    def _recompute(self) -> list[torch.Tensor]:
        saved: list[torch.Tensor] = []

        def pack(tensor: torch.Tensor) -> int:
            index = len(saved)
            saved.append(tensor.detach().clone() if index in self.written else tensor.detach())
            return index

        tensors = dict(zip(self.tensor_keys, self.inputs.grad_fn.saved_tensors, strict=True))
        # Copied once more: a second backward through a retained graph starts from the same state.
        others = {k: _copied(v) for k, v in self.others.items()}
        with ExitStack() as stack:
            for state in self.autocasts:
                stack.enter_context(torch.autocast(**state))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(saved_tensors_hooks(pack, saved.__getitem__))
            self._run(tensors | others)
        if [_kind(tensor) for tensor in saved] != self.kinds:
            raise RuntimeError(
                f"a checkpointed block saved {len(saved)} tensors in the recompute and {len(self.kinds)} in forward, or tensors of another "
                "shape or type: the adapter's mode changed between forward and backward, or the block is not deterministic."
            )
        return saved


def _kind(tensor: torch.Tensor) -> tuple:
    return tensor.shape, tensor.dtype, tensor.device


def _copied(value: object) -> object:
    """Dictionaries and lists as they stand now (hosts count blocks in such an argument); anything else as it is."""
    if type(value) is dict:
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if type(value) is list else value


def _autocasts(device_types: set[str]) -> list[dict[str, object]]:
    """The autocast state of forward, as arguments of torch.autocast: backward runs outside its context, or in a thread
    of its own.
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
