"""4-bit layers of bitsandbytes save their weight for backward where checkpointing sees it.

bitsandbytes' own autograd function keeps weight and scales as attributes of its node. Saved-tensor hooks do not see
these: a checkpointed block would keep its first forward's weights, and the level "stream" all of them on the device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class _Frozen4bit(torch.autograd.Function):
    """The layer's own forward; the gradient of its input from the dequantized weight, as bitsandbytes computes it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, module: nn.Module, plain: Callable) -> torch.Tensor:
        y = plain(x)
        weight, state = module.weight, copy.copy(module.weight.quant_state)
        tensors = [weight.detach().as_subclass(torch.Tensor), state.absmax]
        if state.nested:
            state.state2 = copy.copy(state.state2)
            tensors.append(state.state2.absmax)
            state.state2.absmax = None
        state.absmax = None
        ctx.save_for_backward(*tensors)
        ctx.state, ctx.input_type, ctx.compute_type = state, x.dtype, module.compute_dtype or x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        from bitsandbytes.functional import dequantize_4bit

        weight, absmax, *nested = ctx.saved_tensors
        state = copy.copy(ctx.state)
        state.absmax = absmax
        if nested:
            state.state2 = copy.copy(state.state2)
            state.state2.absmax = nested[0]
        grad = grad.to(ctx.compute_type)
        return (grad @ dequantize_4bit(weight, state).to(grad.dtype)).to(ctx.input_type), None, None


def is_packed(module: nn.Module) -> bool:
    """Whether a module is a linear layer whose weight bitsandbytes has packed to 4 bits."""
    return isinstance(module, nn.Linear) and getattr(module.weight, "quant_state", None) is not None


def packed_forward(module: nn.Module, plain: Callable) -> Callable:
    """Replacement of a 4-bit layer's forward."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return plain(x)
        return _Frozen4bit.apply(x, module, plain)

    return forward
