"""Keep fewer activations for backward in layers with frozen weights, exactly and at almost no cost in time.

The denoiser's own weights are frozen, so backward needs the gradients of activations only. Three kinds of tensors that
PyTorch saves anyway are not kept, about a third of a UNet's saved memory (docs/speed.md):

- the input of a convolution, which only the gradient of its weight needs (PyTorch saves it for both gradients);
- the output of a group norm that feeds a SiLU: recomputed from the norm's input, which is saved in any case;
- in GEGLU, h * gelu(g), the output of the gelu: recomputed from g.

4-bit layers save their weight where checkpointing sees it (packed_layers.py).

Gradients are the same bit for bit where kernels are deterministic. Unchanged are tensors smaller than MIN_BYTES, layers
that write in place or whose weights are trained, and everything when PyTorch is older than 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .packed_layers import is_packed, packed_forward

GEGLUS = ("diffusers.models.activations", "comfy.ldm.modules.attention")
"""Python modules whose class GEGLU computes h * gelu(g) with h, g = proj(x).chunk(2, -1)."""
MIN_BYTES = 2**20
"""Smallest tensor, in bytes, that is not kept. Smaller ones save little, and would make backward a tenth slower."""
_NORM_INPUT = "_dreambooth_dpo_norm"


class _FrozenConv2d(torch.autograd.Function):
    """F.conv2d whose backward computes the gradient of the input only, and so does not save the input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: tuple) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.how = x.shape, how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        (weight,) = ctx.saved_tensors
        return torch.nn.grad.conv2d_input(ctx.shape, weight, grad, *ctx.how), None, None, None


class _SiluOfNorm(torch.autograd.Function):
    """F.silu of y = norm(x) that saves x and recomputes y in backward. x: the norm's input, detached."""

    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, x: torch.Tensor, norm: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        return F.silu(y)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, ctx.norm(x)), None, None


class _Geglu(torch.autograd.Function):
    """h * gelu(g) where `both` holds h and g side by side in the last dimension."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        h, g = both.chunk(2, -1)
        return h * F.gelu(g)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        h, g = both.chunk(2, -1)
        return torch.cat([grad * F.gelu(g), torch.ops.aten.gelu_backward(grad * h, g)], -1)


def _autocast_type(x: torch.Tensor) -> torch.dtype | None:
    """The dtype of autocast on x's device; None when autocast is off."""
    kind = x.device.type
    # is_autocast_available first: the other calls raise for a device type without autocast.
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None


def _conv(module: nn.Conv2d, plain: Callable) -> Callable:
    """Replacement of `_conv_forward`.

    A host's convolution also calls that method, with weights that it has cast itself.
    """

    def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        trained = weight.requires_grad or (bias is not None and bias.requires_grad)
        if trained or x.nbytes < MIN_BYTES or not (torch.is_grad_enabled() and x.requires_grad):
            return plain(x, weight, bias)
        if (kind := _autocast_type(x)) is not None:
            x, weight, bias = x.to(kind), weight.to(kind), None if bias is None else bias.to(kind)
        return _FrozenConv2d.apply(x, weight, bias, (module.stride, module.padding, module.dilation, module.groups))

    return forward


def _norm(plain: Callable) -> Callable:
    """Replacement of a group norm's forward that attaches its input to the output, for a SiLU that follows."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        y = plain(x)
        if y.requires_grad and y.nbytes >= MIN_BYTES:
            kind, device = _autocast_type(x), x.device.type

            def again(source: torch.Tensor) -> torch.Tensor:
                with torch.autocast(device, kind) if kind is not None else nullcontext():
                    return plain(source)

            setattr(y, _NORM_INPUT, (x.detach(), again, x._version))
        return y

    return forward


def _silu(plain: Callable) -> Callable:
    """Replacement of a SiLU's forward: recomputes its input in backward when that is the output of a group norm."""

    def forward(y: torch.Tensor) -> torch.Tensor:
        x, again, version = y.__dict__.pop(_NORM_INPUT, (None, None, None))
        # Something that wrote into the norm's input in between would make another norm in backward.
        return plain(y) if x is None or x._version != version else _SiluOfNorm.apply(y, x, again)

    return forward


def _geglu(module: nn.Module, plain: Callable) -> Callable:
    """Replacement of a GEGLU's forward."""

    def forward(x: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        rows = x.numel() // x.shape[-1] * x.element_size()
        if args or more or rows * module.proj.weight.shape[0] < MIN_BYTES or not torch.is_grad_enabled():
            return plain(x, *args, **more)
        return _Geglu.apply(module.proj(x))

    return forward


def _replacement(module: nn.Module) -> tuple[str, Callable] | None:
    """Name of the module's method to replace, and its replacement; None if the module stays unchanged."""
    if is_packed(module):
        return "forward", packed_forward(module, module.forward)
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return "_conv_forward", _conv(module, module._conv_forward)
    if isinstance(module, nn.GroupNorm) and not any(p.requires_grad for p in module.parameters()):
        return "forward", _norm(module.forward)
    if type(module) is nn.SiLU and not module.inplace:
        return "forward", _silu(module.forward)
    if type(module).__name__ == "GEGLU" and type(module).__module__ in GEGLUS:
        return "forward", _geglu(module, module.forward)
    return None


@contextmanager
def lean(denoiser: nn.Module) -> Iterator[None]:
    """Inside, the denoiser's frozen layers keep fewer activations for backward.

    Hooks on layers (the adapter's) work as usual. Without gradients nothing changes. On exit every layer gets its own
    methods back, also after an error.
    """
    if not hasattr(torch, "get_autocast_dtype"):
        yield
        return
    with ExitStack() as stack:
        for module in denoiser.modules():
            if (replacement := _replacement(module)) is not None:
                name, method = replacement
                stack.callback(_restore, module, name, module.__dict__.get(name))
                setattr(module, name, method)
        yield


def _restore(module: nn.Module, name: str, before: Callable | None) -> None:
    module.__dict__.pop(name, None)
    if before is not None:
        setattr(module, name, before)
