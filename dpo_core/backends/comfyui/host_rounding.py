"""How much of a LoRA is lost where the host merges it into weights of few bits. Used through `host`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from .host_models import with_lora

MOST = 16
"""Layers that are looked at, evenly chosen."""


def is_quantized(tensor: torch.Tensor) -> bool:
    """Whether a weight is one of the host's quantized tensors (0.33)."""
    return any(kind.__name__ == "QuantizedTensor" for kind in (*type(tensor).__mro__, *type(tensor.data).__mro__))


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
            if not is_quantized(weight) and weight.element_size() > 1:
                continue
            base, merged = _plain(weight), _plain(patched.patch_weight_to_device(key, return_weight=True))
            exact = comfy.lora.calculate_weight(patched.patches[key], base.clone(), key)
            errors.append(float((merged - exact).norm() / (exact - base).norm().clamp(min=1e-12)))
    return sum(errors) / len(errors) if errors else None


def _plain(weight: torch.Tensor) -> torch.Tensor:
    """The weight as float32 on the CPU."""
    return (weight.dequantize() if is_quantized(weight) else weight.detach()).float().cpu()
