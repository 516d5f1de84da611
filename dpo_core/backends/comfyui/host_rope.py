"""Gradients for the fused rotary operators of comfy_kitchen, which newer hosts use.

In 0.33 they have no autograd formula, so transformers could not be trained. `in_training` switches most architectures
to eager code, but not Ernie, Anima, Cosmos and JoyImage (0.33). With a registered formula every caller can be trained.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch

OPERATORS = (
    "apply_rope",
    "apply_rope1",
    "apply_rope_split_half",
    "apply_rope_split_half1",
    "rms_rope",
    "rms_rope1",
    "rms_rope_split_half",
    "rms_rope_split_half1",
)
_NAMESPACE = "comfy_kitchen"
_registered: set[str] = set()


def register_gradients() -> list[str]:
    """Register a backward pass for each of `OPERATORS`, once per process; returns the operators registered here.

    Backward recomputes the operator in the library's own eager code and differentiates that. Nothing is registered when
    the host has no comfy_kitchen (0.3.64), lacks an operator, or has its own formula. Forward results do not change.
    """
    try:
        eager = importlib.import_module(f"{_NAMESPACE}.backends.eager.rope")
    except ImportError:
        return []
    for name in OPERATORS:
        if name not in _registered and hasattr(eager, name) and not _has_formula(getattr(eager, f"_op_{name}", None)):
            backward, setup = _formula(getattr(eager, name))
            torch.library.register_autograd(f"{_NAMESPACE}::{name}", backward, setup_context=setup)
            _registered.add(name)
    return sorted(_registered)


def _has_formula(operator: Any) -> bool:
    """Whether a torch.library operator has a backward pass.

    True for anything else, which is then left alone.
    """
    return getattr(operator, "_backward_fn", True) is not None


def _formula(eager: Callable) -> tuple[Callable, Callable]:
    """(backward, setup_context) of an operator; `eager` is its differentiable implementation."""

    def setup(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.tensors = [i for i, value in enumerate(inputs) if isinstance(value, torch.Tensor)]
        ctx.save_for_backward(*(inputs[i] for i in ctx.tensors))
        ctx.others = [None if isinstance(value, torch.Tensor) else value for value in inputs]

    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple:
        values = list(ctx.others)
        for i, tensor in zip(ctx.tensors, ctx.saved_tensors, strict=True):
            values[i] = tensor.detach().requires_grad_(ctx.needs_input_grad[i])
        with torch.enable_grad():
            results = eager(*values)
        results = results if isinstance(results, tuple) else (results,)
        wanted = [i for i in ctx.tensors if ctx.needs_input_grad[i]]
        given = [torch.zeros_like(r) if g is None else g for g, r in zip(gradients, results, strict=True)]
        computed = torch.autograd.grad(results, [values[i] for i in wanted], given, allow_unused=True)
        by_input = dict(zip(wanted, computed, strict=True))
        return tuple(by_input.get(i) for i in range(len(values)))

    return backward, setup
