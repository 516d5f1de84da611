"""Weights of few bits (fp8, int8, nvfp4, ...): exact gradients, and what a merged LoRA loses. Used through `host`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .host_models import with_lora

MOST = 16
"""Layers that are looked at, evenly chosen."""


def is_quantized(tensor: torch.Tensor) -> bool:
    """Whether a weight is one of the host's quantized tensors (0.33)."""
    return any(kind.__name__ == "QuantizedTensor" for kind in (*type(tensor).__mro__, *type(tensor.data).__mro__))


@contextmanager
def full_precision(model: nn.Module) -> Iterator[None]:
    """Inside, layers with int8 or int4 weights multiply in the compute type.

    The host rounds the inputs of these layers by an operator without a gradient (0.33), so that gradients were
    off by 29 %. Layers of other quantized types have gradients of the host's own.
    """
    changed = [(module, getattr(module, "weight_function", [])) for module in model.modules() if rounds_inputs(module)]
    try:
        for module, before in changed:
            module.weight_function = [*before, _dequantize]
        yield
    finally:
        for module, before in changed:
            module.weight_function = before


def rounds_inputs(module: nn.Module) -> bool:
    """Whether a layer's operator rounds its inputs by itself (0.33: `quantize_input` of the format is False)."""
    if (name := getattr(module, "quant_format", None)) is None:
        return False
    from comfy import quant_ops

    return not quant_ops.QUANT_ALGOS.get(name, {}).get("quantize_input", True)


def rounding_of_merge(patcher: Any, lora: Mapping[str, torch.Tensor]) -> float | None:
    """Size of the rounding error of a merged LoRA, relative to its change of the weights; mean over some layers.

    The loader that patches weights rounds the merged ones to the weights' type: for fp8 and below the error is about as
    large as the change. None where the weights have 16 bits or more, and on hosts that do not give a merged weight
    (before `patch_weight_to_device(return_weight=)`).
    """
    if "return_weight" not in inspect.signature(type(patcher).patch_weight_to_device).parameters:
        return None
    import comfy.lora
    from comfy.model_patcher import get_key_weight

    patched, errors = with_lora(patcher, lora), []
    keys = sorted(patched.patches)
    with torch.inference_mode(False), torch.no_grad():
        for key in keys[:: -(-len(keys) // MOST)]:
            weight = get_key_weight(patcher.model, key)[0]
            if not (is_quantized(weight) or (weight.is_floating_point() and weight.element_size() == 1)):
                continue
            merged = patched.patch_weight_to_device(key, return_weight=True)
            base, merged = (_dequantize(w.detach()).float().cpu() for w in (weight, merged))
            exact = comfy.lora.calculate_weight(patched.patches[key], base.clone(), key)
            errors.append(float((merged - exact).norm() / (exact - base).norm().clamp(min=1e-12)))
    return sum(errors) / len(errors) if errors else None


def _dequantize(weight: torch.Tensor) -> torch.Tensor:
    """The weight as an ordinary tensor."""
    return weight.dequantize() if is_quantized(weight) else weight
